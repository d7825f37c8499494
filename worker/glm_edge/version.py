"""The version of workers and gateways: images have no package metadata to ask."""

VERSION = "0.1.0"
