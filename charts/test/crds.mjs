// Reads objects as JSON lines and checks them against the schemas of their CRDs. Prints one line for each problem.
import { readFileSync } from "node:fs";

const packages = {
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator/",
  "gateway.networking.k8s.io": "@kubernetes-models/gateway-api/",
};
for (const line of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const object = JSON.parse(line);
  const home = packages[object.apiVersion.split("/")[0]];
  const models = await import(`${home}${object.apiVersion}/${object.kind}`);
  try {
    new models[object.kind](object).validate();
  } catch (error) {
    console.log(`${object.kind}/${object.metadata.name}: ${error.message}`);
  }
}
