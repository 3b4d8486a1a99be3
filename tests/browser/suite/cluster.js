// Sessions and pods, made by the administrator's kubectl.
//
// From the environment: BROWSER_TEST_URL, where the gateway is; BROWSER_TEST_NAMESPACE, with the pods `web` (container `main`)
// and `pair` (containers `main` and `extra-1`) running in it; KUBECONFIG and KUBECTL.

import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';

const run = promisify(execFile);

function environment(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; see tests/browser/README.md`);
  return value;
}

export const gateway = new URL(environment('BROWSER_TEST_URL'));
export const namespace = environment('BROWSER_TEST_NAMESPACE');
environment('KUBECONFIG');

/** Runs kubectl to its end, as administrator. Returns its output. */
export async function kubectl(...args) {
  const { stdout } = await run(process.env.KUBECTL ?? 'kubectl', ['--namespace', namespace, ...args], { timeout: 60_000, maxBuffer: 1 << 26 });
  return stdout;
}

async function apply(object) {
  const child = spawn(process.env.KUBECTL ?? 'kubectl', ['--namespace', namespace, 'apply', '--validate=false', '-f', '-'], { stdio: ['pipe', 'ignore', 'inherit'] });
  child.stdin.end(JSON.stringify(object));
  const code = await new Promise((resolve) => child.on('close', resolve));
  if (code !== 0) throw new Error(`kubectl apply exited with ${code}`);
}

/** What a shell command prints in a pod, asked by the administrator and not through the gateway. */
export function inPod(pod, script, container = 'main') {
  return kubectl('exec', pod, '--container', container, '--', 'sh', '-c', script);
}

/** A granted session for `pod`, with other fields of the spec. */
export async function session(pod = 'web', spec = {}) {
  const name = `page-${randomBytes(4).toString('hex')}`;
  await apply({
    apiVersion: 'drawbridge.dev/v1alpha1',
    kind: 'ConsoleSession',
    metadata: { name },
    spec: { user: 'alice@example.com', reason: 'orders stuck since 14:05', target: { pod: { name: pod } }, duration: '30m', ...spec },
  });
  await kubectl('wait', '--for=condition=Ready', `consolesessions.drawbridge.dev/${name}`, '--timeout=60s');
  const status = JSON.parse(await kubectl('get', 'consolesessions.drawbridge.dev', name, '-o', 'json')).status;
  const secret = JSON.parse(await kubectl('get', 'secret', status.credential.secret, '-o', 'json'));
  const token = Buffer.from(secret.data.token, 'base64').toString();
  return { name, token, link: `/ui/#${namespace}/${name}/${token}`, expiresAt: Date.parse(status.expiresAt) };
}

/** A granted session that looks at another, and the link to the page of recordings. */
export async function observer(of, spec = {}) {
  const granted = await session(null, { mode: 'Observe', observe: { session: of.name }, target: undefined, ...spec });
  return { ...granted, link: `/ui/replay.html#${namespace}/${of.name}/${granted.token}` };
}

/** Waits until the session has that many finished recordings in its status, and returns them. */
export async function recorded({ name }, count = 1) {
  for (let tries = 0; tries < 120; tries += 1) {
    const { status } = JSON.parse(await kubectl('get', 'consolesessions.drawbridge.dev', name, '-o', 'json'));
    if ((status.recordings ?? []).length >= count) return status.recordings;
    await new Promise((go) => setTimeout(go, 250));
  }
  throw new Error(`session ${name} has not ${count} recordings after 30 seconds`);
}

/** A token of an ordinary account of the namespace, which may get the recordings of the sessions named, and of no other. */
export async function auditor(...sessions) {
  const name = `auditor-${randomBytes(4).toString('hex')}`;
  const beside = { metadata: { name } };
  await apply({ apiVersion: 'v1', kind: 'ServiceAccount', ...beside });
  const rules = [{ apiGroups: ['drawbridge.dev'], resources: ['consolesessions/recordings'], resourceNames: sessions, verbs: ['get'] }];
  await apply({ apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'Role', ...beside, rules });
  await apply({
    apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'RoleBinding', ...beside,
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name },
    subjects: [{ kind: 'ServiceAccount', name, namespace }],
  });
  return (await kubectl('create', 'token', name)).trim();
}

/** Ends a session at once. */
export function revoke({ name }) {
  return kubectl('patch', 'consolesessions.drawbridge.dev', name, '--type=merge', '-p', '{"spec":{"revoked":true}}');
}
