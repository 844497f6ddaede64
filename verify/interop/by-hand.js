// Peers moved by hand, one frame at a time, to see what the other side makes of it.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:http';
import { request as requestSecurely } from 'node:https';
import { connect, createServer } from 'node:net';
import { connect as connectSecurely, createServer as createSecureServer } from 'node:tls';
import { WebSocket, WebSocketServer } from 'ws';
import { atEnd } from './at-end.js';
import { Client } from './client.js';
import { isSecure, tlsOfTheRun, trust } from './over-tls.js';
import { Server, httpServer } from './server.js';
import { Transcript } from './transcript.js';
import { authenticate } from './wire.js';

const HANDSHAKE_TIMEOUT = 10_000;
const CLIENT_EVENTS = ['connected', 'authenticated', 'message', 'heartbeat', 'ping', 'disconnected', 'reconnecting', 'connection_failed', 'error'];
const SERVER_EVENTS = ['connected', 'authenticated', 'message', 'heartbeat', 'pong', 'disconnected', 'refused', 'error'];

/** A JavaScript server that lives as long as the test, and what it saw under `seen`. With `echo`, it sends messages back. */
export async function javaScriptServer(t, { echo = false, tls = tlsOfTheRun(), ...options } = {}) {
  const server = new Server({ tls, ...options });
  server.seen = Transcript.of(server, 'the JavaScript server', SERVER_EVENTS);
  server.frames = [];
  server.on('frame', (bytes, binary) => server.frames.push({ text: bytes.toString(), binary }));
  if (echo) server.on('message', (address, message) => server.send(address, message));
  await server.listen();
  atEnd(t, () => server.close());
  return server;
}

/** A JavaScript client that has dialled, and what it saw under `seen`. */
export function javaScriptClient(t, url, { socketOptions, ...options } = {}) {
  const client = new Client({ url, socketOptions: { ...trust(url), ...socketOptions }, ...options });
  client.seen = Transcript.of(client, 'the JavaScript client', CLIENT_EVENTS);
  client.frames = [];
  client.on('frame', (bytes, binary) => client.frames.push({ text: bytes.toString(), binary }));
  client.connect();
  atEnd(t, () => client.disconnect());
  return client;
}

/** The same, once the server has answered. */
export async function authenticatedClient(t, url, options) {
  const client = javaScriptClient(t, url, options);
  await client.seen.first('authenticated');
  return client;
}

/** One side of one WebSocket, told frame by frame. Its transcript has `frame`, `ping`, `pong` and at the end `closed`. */
export class Peer {
  constructor(webSocket, title) {
    this.webSocket = webSocket;
    this.seen = new Transcript(title);
    webSocket.on('message', (bytes, binary) => this.seen.add({ event: 'frame', text: bytes.toString('utf8'), binary }));
    webSocket.on('ping', (payload) => this.seen.add({ event: 'ping', payload: payload.toString() }));
    webSocket.on('pong', (payload) => this.seen.add({ event: 'pong', payload: payload.toString() }));
    webSocket.on('error', (error) => this.seen.add({ event: 'error', message: error.message }));
    webSocket.on('close', (code) => {
      this.seen.add({ event: 'closed', code });
      this.seen.end('it was closed');
    });
  }

  /** Sends a text or bytes as they are, anything else as JSON. */
  say(frame) {
    this.webSocket.send(typeof frame === 'string' || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame));
    return this;
  }

  /** Every frame that came until the other side closed. */
  async framesUntilClosed() {
    await this.seen.first('closed');
    return this.seen.all('frame').map(({ text, binary }) => ({ text, binary }));
  }

  /** The first frame holding JSON of that type. */
  async message(type) {
    const frame = await this.seen.first('frame', ({ text }) => typeOf(text) === type);
    return JSON.parse(frame.text);
  }
}

/** A visitor of a server, whose socket is open and who has said nothing yet. */
export async function visit(t, url, { protocols = [], ...options } = {}) {
  const webSocket = new WebSocket(url, protocols, { handshakeTimeout: HANDSHAKE_TIMEOUT, ...trust(url), ...options });
  atEnd(t, () => webSocket.terminate());
  const peer = new Peer(webSocket, 'the visitor');
  await once(webSocket, 'open');
  return peer;
}

/** A visitor who has authenticated with `wallet`. */
export async function visitAs(t, url, wallet, options) {
  const peer = await visit(t, url, options);
  peer.say(authenticate(wallet, freshTimestamp()));
  await peer.message('authenticate');
  return peer;
}

/** A socket just upgraded to a WebSocket, for bytes that no library would send. */
export async function upgradeByHand(t, url) {
  const upgrade = (isSecure(url) ? requestSecurely : request)(url.replace(/^ws/, 'http'), {
    ...trust(url),
    headers: { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': 13, 'sec-websocket-key': randomBytes(16).toString('base64') },
    timeout: HANDSHAKE_TIMEOUT,
  });
  upgrade.on('response', ({ statusCode }) => upgrade.destroy(new Error(`the upgrade was answered with ${statusCode}`)));
  upgrade.on('timeout', () => upgrade.destroy(new Error('the upgrade was not answered')));
  upgrade.end();
  const [, socket] = await once(upgrade, 'upgrade');
  socket.setTimeout(0);
  atEnd(t, () => socket.destroy());
  return socket.on('error', () => {});
}

/** Waits until the other side has hung up a socket; to be called before anything is written. */
export function hungUp(socket, sentence) {
  const seen = new Transcript('the socket');
  socket.on('error', (error) => seen.add({ event: 'error', message: error.message }));
  socket.on('data', (bytes) => seen.add({ event: 'bytes', text: bytes.toString('latin1') }));
  socket.on('end', () => socket.end());
  socket.on('close', () => seen.add({ event: 'closed' }));
  return seen.until(() => seen.all('closed').length > 0, `being hung up on, for ${sentence}`);
}

/** A socket to a server, below WebSocket and above TLS, if there is to be TLS. Told at once; what is written waits. */
export function dial(t, url) {
  const { hostname, port } = new URL(url);
  const socket = isSecure(url) ? connectSecurely({ host: hostname, port: Number(port), ...trust(url) }) : connect(Number(port), hostname);
  atEnd(t, () => socket.destroy());
  return socket;
}

/** Everything a server says to someone who dials, writes `greeting` and then nothing, until it hangs up. */
export async function heardByDialling(t, url, greeting = '') {
  const socket = dial(t, url);
  const seen = new Transcript('the socket');
  let heard = '';
  socket.on('data', (bytes) => (heard += bytes.toString('latin1')));
  socket.on('error', (error) => seen.add({ event: 'error', message: error.message }));
  socket.on('close', () => seen.add({ event: 'closed' }));
  if (greeting) socket.write(greeting);
  await seen.first('closed');
  return heard;
}

/** A server that does for each client what `story(peer, number)` says; `peers` has them in the order of their coming. */
export async function serverByHand(t, story, { tls = tlsOfTheRun(), ...options } = {}) {
  const listener = httpServer({ tls });
  const server = new WebSocketServer({ server: listener, ...options });
  await once(listener.listen(0, '127.0.0.1'), 'listening');
  atEnd(t, () => {
    server.clients.forEach((client) => client.terminate());
    listener.close();
  });
  const peers = [];
  const seen = new Transcript('the server by hand');
  server.on('connection', (webSocket) => {
    const peer = new Peer(webSocket, 'a client of the server by hand');
    peers.push(peer);
    seen.add({ event: 'connected', number: peers.length });
    Promise.resolve(story(peer, peers.length)).catch((error) => seen.add({ event: 'story broke off', message: error.message }));
  });
  return { url: `${tls ? 'wss' : 'ws'}://127.0.0.1:${listener.address().port}`, peers, seen };
}

/** The URL of a server that greets everybody with these words and hangs up; they are in TLS, if there is to be TLS. */
export async function greeter(t, words, { tls = tlsOfTheRun() } = {}) {
  const greet = (socket) => socket.on('error', () => {}).resume().end(words);
  const server = tls ? createSecureServer(tls, greet) : createServer(greet);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  atEnd(t, () => new Promise((resolve) => server.close(resolve)));
  return `${tls ? 'wss' : 'ws'}://127.0.0.1:${server.address().port}`;
}

/** The types of the messages that a peer sent, in order; a frame that has none is told as it is. */
export function typesSent(peer) {
  return peer.seen.all('frame').map(({ text }) => typeOf(text) ?? text);
}

let latest = 0;

/** Now, and never the same millisecond twice: a server may remember what it has seen. */
export function freshTimestamp() {
  latest = Math.max(latest + 1, Date.now());
  return latest;
}

export function typeOf(text) {
  try {
    return JSON.parse(text)?.type;
  } catch {
    return undefined;
  }
}
