"""`helm test`: exit 0 when the operator lives and the API server serves GLMDeployments. Argument: its /livez.

Runs in the operator image with the standard library only. Discovery is open to every ServiceAccount.
"""

import json
import ssl
import sys
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API = "https://kubernetes.default.svc/apis/glm-operator.io/v1alpha1"

with urllib.request.urlopen(sys.argv[1], timeout=10) as answer:
    print(f"the operator lives: {sys.argv[1]} answered {answer.status}")

discovery = urllib.request.Request(API, headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"})
trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
with urllib.request.urlopen(discovery, timeout=10, context=trust) as answer:
    served = {resource["name"] for resource in json.load(answer)["resources"]}
missing = {"glmdeployments", "glmdeployments/status", "glmdeployments/scale"} - served
if missing:
    sys.exit(f"the API server does not serve {', '.join(sorted(missing))}; it serves {', '.join(sorted(served))}")
print("the API server serves glmdeployments with status and scale")
