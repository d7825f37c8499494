{{/* Names: RELEASE-glm-operator, or just the release's name when it already says so. */}}
{{- define "glm-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "glm-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "glm-operator.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "glm-operator.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "glm-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "glm-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "glm-operator.labels" -}}
{{ include "glm-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "glm-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "glm-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Argument: dict "image" (repository, tag, digest) "version" (tag when none is given). */}}
{{- define "glm-operator.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .version .image.tag }}
{{- end -}}
{{- end -}}

{{/*
What every pod of this chart has in its spec: where it may run, and that it may in a namespace that enforces the restricted
Pod Security Standard.
*/}}
{{- define "glm-operator.podSpec" -}}
automountServiceAccountToken: true
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "glm-operator.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/*
Whether something of monitoring.* is wanted; true or nothing. Argument: dict "root" $ "enabled" (auto, true, false). Auto asks the
cluster: what a plain `helm template` knows of it is given by --api-versions.
*/}}
{{- define "glm-operator.monitored" -}}
{{- if or (eq (toString .enabled) "true") (and (eq (toString .enabled) "auto") (.root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
true
{{- end -}}
{{- end -}}

{{/* The Secrets for Prometheus, by the folder that each is mounted in. They follow an edit of the Secret: no subPath. */}}
{{- define "glm-operator.prometheusSecrets" -}}
{{- with .Values.prometheus -}}
{{- if contains "@" .url -}}
{{- fail "prometheus.url has a user or a password in it; name a Secret with them: prometheus.basicAuthSecret or prometheus.bearerTokenSecret" -}}
{{- end -}}
{{- if and .bearerTokenSecret.name .basicAuthSecret.name -}}
{{- fail "prometheus.bearerTokenSecret and prometheus.basicAuthSecret exclude each other; name one" -}}
{{- end -}}
{{- range $folder, $secret := dict "ca" .caSecret "certificate" .certificateSecret "token" .bearerTokenSecret "basic" .basicAuthSecret -}}
{{- with $secret.name }}
{{ $folder }}: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Annotations of the operator's pod: those that name its metrics, and those of the values, which win. */}}
{{- define "glm-operator.podAnnotations" -}}
{{- $scraped := dict -}}
{{- if ne (toString (.Values.monitoring).scrapeAnnotations) "false" -}}
{{- $scraped = dict "prometheus.io/scrape" "true" "prometheus.io/port" "8080" "prometheus.io/path" "/metrics" -}}
{{- end -}}
{{- merge (dict) (.Values.podAnnotations | default dict) $scraped | toYaml -}}
{{- end -}}

{{/* Labels of what Prometheus and Grafana find. */}}
{{- define "glm-operator.monitoringLabels" -}}
{{ include "glm-operator.labels" . }}
{{- with .Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* "true" where the operator makes certificates, and so may write Secrets. A release from before has no such value: it does. */}}
{{- define "glm-operator.makesCertificates" -}}
{{- $certificates := .Values.certificates | default dict -}}
{{- if ne (toString $certificates.enabled) "false" -}}true{{- end -}}
{{- end }}
