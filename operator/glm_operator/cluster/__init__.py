"""Everything outside of the process: the API server and the management ports of workers."""
