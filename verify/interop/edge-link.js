// The Rust command, run as a child: its lines of JSON, its standard error and its exit.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { atEnd } from './at-end.js';
import { authority, certified, file, isSecure, overTls } from './over-tls.js';
import { Transcript } from './transcript.js';

/** `edge-link serve`, listening; it is expected to live to the end of the test `t`, unless it is interrupted. */
export function serve(t, ...options) {
  return overTls ? serveWith(t, certified(), ...options) : servePlainly(t, ...options);
}

/** The same with a certificate and its key. */
export function serveWith(t, { cert, key }, ...options) {
  return servePlainly(t, '--tls-cert', file(cert), '--tls-key', file(key), ...options);
}

/** The same without TLS, whatever the others do. */
export async function servePlainly(t, ...options) {
  const command = new Command(t, ['serve', '--listen', '127.0.0.1:0', '--json', ...options]);
  atEnd(t, () => assert.ok(command.isRunning || command.wasInterrupted, `the server lives to the end of the test: ${command.told()}`));
  const { url, address } = await command.events.first('listening');
  return Object.assign(command, { url, address });
}

/**
 * `edge-link connect`, of that wallet if one is given; ended with the test `t` if it is still there. Over TLS it trusts the
 * authority that is given, or none of ours for `null`.
 */
export function connect(t, url, options = [], { wallet, trusted = isSecure(url) ? authority() : null } = {}) {
  const ca = trusted ? ['--ca', file(trusted.pem)] : [];
  return new Command(t, ['connect', url, '--json', ...ca, ...options], wallet);
}

// A test file that takes too long is told to end by the runner, and its tests' own ends are not come to any more.
const running = new Set();
process.once('SIGTERM', () => {
  running.forEach((child) => child.kill('SIGKILL'));
  process.exit(1);
});

class Command {
  #child;
  #stderr = '';
  #title;
  wasInterrupted = false;

  constructor(t, args, wallet) {
    const { LINK_PRIVATE_KEY, ...environment } = process.env;
    if (wallet) environment.LINK_PRIVATE_KEY = wallet.privateKey;
    this.#title = `edge-link ${args[0]}`;
    this.events = new Transcript(this.#title);
    // The same on whatever runtime it is to use.
    const runtime = process.env.EDGE_LINK_RUNTIME;
    const all = runtime ? [...args, '--runtime', runtime] : args;
    this.#child = spawn(program(), all, { stdio: ['ignore', 'pipe', 'pipe'], env: environment });
    running.add(this.#child);
    this.#child.once('close', () => running.delete(this.#child));
    this.#child.stderr.setEncoding('utf8').on('data', (text) => (this.#stderr += text));
    this.#readLines();
    this.exit = new Promise((resolve, reject) => {
      this.#child.once('error', reject);
      this.#child.once('close', (code, signal) => {
        this.events.end(`it ended (${this.told()})`);
        resolve({ code, signal, stderr: this.#stderr });
      });
    });
    this.exit.catch((error) => this.events.end(`it could not be run (${error.message})`));
    atEnd(t, () => this.#end());
  }

  get isRunning() {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Its exit, which must come within the deadline. */
  async exited() {
    let deadline;
    const late = new Promise((_, reject) => {
      deadline = setTimeout(() => {
        const events = this.events.entries.map((event) => '\n    ' + JSON.stringify(event)).join('');
        reject(new assert.AssertionError({ message: `${this.#title} did not exit within 25 s: ${this.told()}; events:${events}` }));
      }, 25_000);
    });
    return Promise.race([this.exit, late]).finally(() => clearTimeout(deadline));
  }

  /** Asserts that it gave up: exit code 1, with a reason that fits on standard error. */
  async givesUp(reason) {
    const { code, stderr } = await this.exited();
    assert.equal(code, 1, `exit code of ${this.#title}; ${this.told()}`);
    assert.match(stderr, reason, 'the reason on standard error');
    return stderr;
  }

  interrupt() {
    this.wasInterrupted = true;
    this.#child.kill('SIGINT');
  }

  told() {
    const { exitCode, signalCode } = this.#child;
    const state = this.isRunning ? 'still running' : signalCode ? `signal ${signalCode}` : `exit code ${exitCode}`;
    return `${state}, stderr ${this.#stderr === '' ? 'empty' : JSON.stringify(this.#stderr.slice(-2000))}`;
  }

  async #end() {
    this.#child.kill('SIGKILL');
    await this.exit;
    assert.deepEqual(this.events.all('unreadable'), [], `each line of ${this.#title} --json is a JSON object with an event`);
    assert.doesNotMatch(this.#stderr, /panicked/, `${this.#title} never panics`);
  }

  #readLines() {
    let rest = '';
    this.#child.stdout.setEncoding('utf8').on('data', (text) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop();
      lines.forEach((line) => this.events.add(readable(line) ?? { event: 'unreadable', line }));
    });
  }
}

function readable(line) {
  try {
    const value = JSON.parse(line);
    return typeof value?.event === 'string' ? value : null;
  } catch {
    return null;
  }
}

function program() {
  const told = process.env.EDGE_LINK;
  const built = ['../../target/release/edge-link', '../../target/debug/edge-link'].map((path) => fileURLToPath(new URL(path, import.meta.url)));
  const found = (told ? [told] : built).find((path) => existsSync(path));
  if (found) return found;
  throw new Error(
    `no edge-link at ${(told ? [told] : built).join(' or ')}: build it with \`cargo build --release -p edge-link\`, ` +
      'or set the environment variable EDGE_LINK to where it is',
  );
}
