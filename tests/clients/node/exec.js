// Runs the Exec class of @kubernetes/client-node, unmodified, against one container.
//
//   node exec.js --kubeconfig FILE --namespace NAME --pod NAME --container NAME
//
// Whatever the kubeconfig names answers: an API server, or a gateway in front of one. Each check prints the promise it
// proves; the exit code is 0 only when all hold. The container needs a busybox or better.
import { createHash } from 'node:crypto';
import { PassThrough, Writable } from 'node:stream';
import { parseArgs } from 'node:util';
import { Exec, KubeConfig } from '@kubernetes/client-node';

// Milliseconds that one exec may take. Generous: a machine that runs the tests of everything else is slow.
const LIMIT = 60_000;
const LARGE = 5 * 1024 * 1024;

class Broken extends Error {}

function expect(actual, expected, what) {
  const [a, e] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (a !== e) throw new Broken(`${what}: expected ${shorten(e)}, got ${shorten(a)}`);
}
function shorten(text) {
  return text === undefined || text.length <= 200 ? text : `${text.slice(0, 100)} ... ${text.slice(-60)} (${text.length} long)`;
}

async function withLimit(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Broken(`${what} did not happen within ${LIMIT / 1000} s`)), LIMIT);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// Keeps what is written to it, and tells who waits for a text.
class Sink extends Writable {
  chunks = [];
  waiting = new Set();
  _write(chunk, _encoding, done) {
    this.chunks.push(Buffer.from(chunk));
    for (const look of this.waiting) look();
    done();
  }
  get bytes() {
    return Buffer.concat(this.chunks);
  }
  get text() {
    return this.bytes.toString('utf8');
  }
  // Resolves once TEXT has arrived, and forgets everything up to its end.
  async until(text) {
    let look;
    const seen = new Promise((resolve) => {
      look = () => {
        const at = this.bytes.indexOf(text);
        if (at < 0) return;
        this.chunks = [this.bytes.subarray(at + Buffer.byteLength(text))];
        resolve();
      };
      this.waiting.add(look);
      look();
    });
    try {
      await withLimit(seen, `${JSON.stringify(text)} (the terminal showed ${shorten(JSON.stringify(this.text))})`);
    } finally {
      this.waiting.delete(look);
    }
  }
}

// What makes the library believe that a stream is a terminal, and send sizes.
class Screen extends Sink {
  constructor(columns, rows) {
    super();
    Object.assign(this, { columns, rows });
  }
  resize(columns, rows) {
    Object.assign(this, { columns, rows });
    this.emit('resize');
  }
}

class Container {
  constructor(kubeconfig, { namespace, pod, container }) {
    this.exec = new Exec(kubeconfig);
    this.where = { namespace, pod, container };
  }

  // Starts COMMAND; `ended` resolves with its Status, or rejects when the connection ends without one.
  async start(command, { stdout, stderr = null, stdin = null, tty = false, pod = this.where.pod }) {
    let told;
    const status = new Promise((resolve) => {
      told = resolve;
    });
    const { namespace, container } = this.where;
    const opening = this.exec.exec(namespace, pod, container, command, stdout, stderr, stdin, tty, told);
    const socket = await withLimit(opening, 'the connection');
    const closed = new Promise((_, reject) => {
      socket.addEventListener('close', ({ code, reason }) => {
        // The library hands over the Status before it closes; one tick lets that promise win.
        setImmediate(() => reject(new Broken(`closed with ${code} "${reason}" and no Status`)));
      });
    });
    const ended = withLimit(Promise.race([status, closed]), `the end of ${JSON.stringify(command)}`);
    ended.catch(() => {}); // seen by whoever awaits it; a check that fails earlier must not crash the process
    return { socket, ended };
  }

  async run(command) {
    const [stdout, stderr] = [new Sink(), new Sink()];
    const { ended } = await this.start(command, { stdout, stderr });
    const status = await ended;
    return { stdout, stderr, status };
  }

  async terminal(columns, rows) {
    const [screen, keys] = [new Screen(columns, rows), new PassThrough()];
    const { socket, ended } = await this.start(['sh'], { stdout: screen, stdin: keys, tty: true });
    return { screen, socket, ended, type: (text) => keys.write(text) };
  }
}

function exitCode(status) {
  if (status.status === 'Success') return 0;
  expect(status.reason, 'NonZeroExitCode', `reason of ${JSON.stringify(status)}`);
  return Number(status.details.causes.find(({ reason }) => reason === 'ExitCode').message);
}

// Asks until the terminal has that size: it travels beside the input.
async function becomes(terminal, columns, rows) {
  terminal.type(`until [ "$(stty size)" = "${rows} ${columns}" ]; do :; done; echo "is $(stty size)"\n`);
  await terminal.screen.until(`is ${rows} ${columns}`);
}

const checks = {
  async 'stdout and stderr are kept apart, and the Status is Success'(container) {
    const { stdout, stderr, status } = await container.run(['sh', '-c', 'echo to-out; echo to-err >&2']);
    expect([stdout.text, stderr.text, status.status], ['to-out\n', 'to-err\n', 'Success'], 'stdout, stderr, status');
  },

  async 'a failing command has the reason NonZeroExitCode and its code'(container) {
    const { status } = await container.run(['sh', '-c', 'exit 42']);
    expect([status.status, status.reason, exitCode(status)], ['Failure', 'NonZeroExitCode', 42], 'status');
  },

  async 'a program that does not exist is a failure'(container) {
    const { status } = await container.run(['no-such-program']);
    expect(status.status, 'Failure', 'status');
  },

  async 'every byte arrives'(container) {
    const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    const escapes = Array.from(all, (byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('');
    const { stdout } = await container.run(['printf', escapes]);
    expect(stdout.bytes.toString('hex'), all.toString('hex'), 'output');
  },

  async '5 MiB of output arrive whole'(container) {
    const { stdout, status } = await container.run(['sh', '-c', `seq 1 2000000 | head -c ${LARGE}`]);
    let expected = '';
    for (let n = 1; expected.length < LARGE; n += 1) expected += `${n}\n`;
    const digest = (data) => createHash('sha256').update(data).digest('hex');
    expect([status.status, stdout.bytes.length], ['Success', LARGE], 'status and length');
    expect(digest(stdout.bytes), digest(expected.slice(0, LARGE)), 'SHA-256');
  },

  async 'a terminal is typed into, and its exit code arrives'(container) {
    const terminal = await container.terminal(80, 24);
    // What the terminal echoes holds the quotes; what the shell answers does not.
    terminal.type("echo 'naïve'' ☃'; tty\n");
    await terminal.screen.until('naïve ☃');
    await terminal.screen.until('/dev/');
    terminal.type('exit 7\n');
    expect(exitCode(await terminal.ended), 7, 'exit code');
  },

  async 'Ctrl-C interrupts what runs on the terminal'(container) {
    const terminal = await container.terminal(80, 24);
    // Said by the program that is to be interrupted: between two of its programs the shell itself takes the Ctrl-C.
    terminal.type(`sh -c 'echo be""fore; exec sleep 9999'\n`);
    await terminal.screen.until('before');
    terminal.type('\x03');
    terminal.type("echo 'af''ter'\n");
    await terminal.screen.until('after');
    terminal.type('exit 0\n');
    expect(exitCode(await terminal.ended), 0, 'exit code');
  },

  async 'a terminal has the size of the screen, and follows it'(container) {
    const terminal = await container.terminal(101, 31);
    await becomes(terminal, 101, 31);
    terminal.screen.resize(203, 57);
    await becomes(terminal, 203, 57);
    terminal.type('exit 0\n');
    expect(exitCode(await terminal.ended), 0, 'exit code');
  },

  async 'sizes sent without a terminal do no harm'(container) {
    // The library sends them whenever stdout looks like a screen, whether or not it asked for a terminal.
    const [screen, stderr] = [new Screen(80, 24), new Sink()];
    const { ended } = await container.start(['sh', '-c', 'echo still; echo here >&2; exit 5'], { stdout: screen, stderr });
    screen.resize(100, 30);
    const status = await ended;
    expect([screen.text, stderr.text, exitCode(status)], ['still\n', 'here\n', 5], 'stdout, stderr, exit code');
  },

  async 'the end of input is told (v5)'(container) {
    const [stdin, stdout] = [new PassThrough(), new Sink()];
    const { socket, ended } = await container.start(['sha256sum'], { stdout, stdin });
    if (socket.protocol !== 'v5.channel.k8s.io') {
      socket.close();
      return `${socket.protocol || 'no subprotocol'} has no end of input`;
    }
    const data = Buffer.alloc(1024 * 1024, 'drawbridge');
    stdin.end(data);
    expect(exitCode(await ended), 0, 'exit code');
    expect(stdout.text, `${createHash('sha256').update(data).digest('hex')}  -\n`, 'SHA-256 in the container');
  },

  async 'a refused exec is an error'(container) {
    let opened;
    try {
      opened = await container.start(['true'], { stdout: new Sink(), pod: 'no-such-pod' });
    } catch (refused) {
      if (!/\b(403|404)\b/.test(refused.message)) throw new Broken(`refused, but with "${refused.message}"`);
      return;
    }
    opened.socket.close();
    throw new Broken('an exec in a pod that is not there was accepted');
  },
};

const options = Object.fromEntries(['kubeconfig', 'namespace', 'pod', 'container'].map((name) => [name, { type: 'string' }]));
const { values } = parseArgs({ options });
for (const name of Object.keys(options)) {
  if (values[name]) continue;
  console.error(`--${name} is missing\nusage: node exec.js --kubeconfig FILE --namespace NAME --pod NAME --container NAME`);
  process.exit(2);
}
const kubeconfig = new KubeConfig();
kubeconfig.loadFromFile(values.kubeconfig);
const container = new Container(kubeconfig, values);

const counts = { passed: 0, failed: 0, skipped: 0 };
for (const [promise, check] of Object.entries(checks)) {
  const began = performance.now();
  try {
    const skipped = await check(container);
    counts[skipped ? 'skipped' : 'passed'] += 1;
    const seconds = ((performance.now() - began) / 1000).toFixed(2);
    console.log(skipped ? `skipped ${promise}: ${skipped}` : `ok      ${promise} (${seconds} s)`);
  } catch (failure) {
    counts.failed += 1;
    console.log(`FAILED  ${promise}: ${failure instanceof Broken ? failure.message : (failure.stack ?? failure.message)}`);
  }
}
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
// Not left to the event loop: a connection that a failed check left open would hold it.
process.exit(counts.failed > 0 ? 1 : 0);
