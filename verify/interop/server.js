// The server of Link v1 as JavaScript peers know it, its leniency included (it checks an address before it is proved, takes
// any text for a timestamp), less what kills it: a frame that would throw there only loses its own connection here.

import { EventEmitter } from 'node:events';
import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { WebSocket, WebSocketServer } from 'ws';
import { CONFLICT, FORBIDDEN, REQUEST_TIMEOUT, UNAUTHORIZED, authenticate, isSigned, parse } from './wire.js';
import { Wallet } from './wallet.js';

/**
 * Emits `connected`, `authenticated` (address), `message` (address, value), `heartbeat` (address, ts), `pong` (address,
 * payload), `disconnected` (address), `refused` (text), `error` and, for whoever counts bytes, `frame` (bytes, binary, address).
 * A zero interval or timeout switches that guard off; `now` is the clock that is signed and compared. With `tls`, a certificate
 * and its key, it speaks TLS.
 */
export class Server extends EventEmitter {
  #http;
  #webSockets;
  #pending = new Map(); // a TCP connection that has not upgraded yet → the timer of its 408
  #visitors = new Map(); // WebSocket → { since, seen, address }
  #clients = new Map(); // address → WebSocket
  #timers = [];

  constructor(options = {}) {
    super();
    this.options = {
      wallet: new Wallet(),
      host: '127.0.0.1',
      port: 0,
      tls: null,
      authTimeout: 5000,
      authCheckInterval: 1000,
      heartbeatInterval: 1000,
      clientTimeout: 5000,
      clientTimeoutInterval: 1000,
      replaceExisting: true,
      whitelist: null,
      onAuthenticate: null,
      now: Date.now,
      autoPong: true,
      ...options,
    };
    this.#http = httpServer(this.options);
    // `ws` takes up no compression unless it is told to: permessage-deflate is declined by not being answered.
    this.#webSockets = new WebSocketServer({ noServer: true, autoPong: this.options.autoPong });
    this.on('error', () => {});
  }

  get address() {
    return this.options.wallet.address;
  }

  get port() {
    return this.#http.address().port;
  }

  get url() {
    return `${this.options.tls ? 'wss' : 'ws'}://${this.options.host}:${this.port}`;
  }

  get clients() {
    return [...this.#clients.keys()];
  }

  async listen() {
    const { host, port, tls, authTimeout, authCheckInterval, heartbeatInterval, clientTimeout, clientTimeoutInterval } = this.options;
    this.#http.on(tls ? 'secureConnection' : 'connection', (socket) => this.#awaitUpgrade(socket));
    this.#http.on('tlsClientError', (error) => this.emit('error', error));
    this.#http.on('upgrade', (request, socket, head) => {
      clearTimeout(this.#pending.get(socket));
      this.#webSockets.handleUpgrade(request, socket, head, (webSocket) => this.#welcome(webSocket));
    });
    await new Promise((resolve, reject) => this.#http.once('error', reject).listen(port, host, resolve));
    if (authTimeout) this.#each(authCheckInterval, (webSocket, visitor) => this.#guardAuthentication(webSocket, visitor));
    if (heartbeatInterval) this.#each(heartbeatInterval, (webSocket, visitor) => this.#beat(webSocket, visitor));
    if (clientTimeout) this.#each(clientTimeoutInterval, (webSocket, visitor) => this.#guardIdleness(webSocket, visitor));
    return this;
  }

  send(address, message) {
    this.#clients.get(address)?.send(JSON.stringify(message));
  }

  broadcast(message) {
    for (const address of this.#clients.keys()) this.send(address, message);
  }

  /** Ends everything at once, as a process that dies would; the port is free when this resolves. */
  async close() {
    this.#timers.forEach(clearInterval);
    for (const [socket, timer] of this.#pending) {
      clearTimeout(timer);
      socket.destroy();
    }
    for (const webSocket of this.#visitors.keys()) webSocket.terminate();
    await new Promise((resolve) => this.#http.close(resolve));
  }

  #each(interval, step) {
    this.#timers.push(setInterval(() => [...this.#visitors].forEach(([webSocket, visitor]) => step(webSocket, visitor)), interval));
  }

  #awaitUpgrade(socket) {
    const timeout = () => {
      socket.write(REQUEST_TIMEOUT);
      socket.destroySoon();
    };
    this.#pending.set(socket, this.options.authTimeout ? setTimeout(timeout, this.options.authTimeout) : undefined);
    socket.on('error', () => {});
    socket.once('close', () => {
      clearTimeout(this.#pending.get(socket));
      this.#pending.delete(socket);
    });
  }

  #welcome(webSocket) {
    const visitor = { since: Date.now(), seen: Date.now(), address: null };
    this.#visitors.set(webSocket, visitor);
    webSocket.on('message', (bytes, binary) => {
      visitor.seen = Date.now();
      this.emit('frame', bytes, binary, visitor.address);
      if (visitor.address) this.#onMessage(visitor, bytes);
      else this.#onFirstFrame(webSocket, visitor, bytes).catch((error) => this.#lose(webSocket, error));
    });
    webSocket.on('pong', (payload) => {
      visitor.seen = Date.now();
      this.emit('pong', visitor.address, payload);
    });
    webSocket.on('error', (error) => this.emit('error', error));
    webSocket.on('close', () => {
      this.#visitors.delete(webSocket);
      if (this.#clients.get(visitor.address) === webSocket) this.#clients.delete(visitor.address);
      if (visitor.address) this.emit('disconnected', visitor.address);
    });
    this.emit('connected');
  }

  async #onFirstFrame(webSocket, visitor, bytes) {
    const proof = parse(bytes);
    if (proof.type !== 'authenticate') return webSocket.close();
    const { authTimeout, now, onAuthenticate, replaceExisting, wallet, whitelist } = this.options;
    if (whitelist && !whitelist.includes(proof.address)) return this.#refuse(webSocket, FORBIDDEN);
    if (onAuthenticate && !(await onAuthenticate(proof.address))) return this.#refuse(webSocket, FORBIDDEN);
    if (Math.abs(now() - proof.timestamp) > authTimeout) return this.#refuse(webSocket, UNAUTHORIZED);
    if (!isSigned(proof)) return this.#refuse(webSocket, UNAUTHORIZED);
    const existing = this.#clients.get(proof.address);
    if (existing && !replaceExisting) return this.#refuse(webSocket, CONFLICT);
    if (existing) this.#drop(existing, CONFLICT);
    visitor.address = proof.address;
    this.#clients.set(proof.address, webSocket);
    webSocket.send(JSON.stringify(authenticate(wallet, now())));
    this.emit('authenticated', proof.address);
  }

  #onMessage(visitor, bytes) {
    let message;
    try {
      message = parse(bytes);
    } catch (error) {
      this.emit('error', error); // and the connection stays
      return;
    }
    if (message?.type === 'heartbeat') this.emit('heartbeat', visitor.address, message.ts);
    else this.emit('message', visitor.address, message);
  }

  #guardAuthentication(webSocket, visitor) {
    if (!visitor.address && Date.now() - visitor.since > this.options.authTimeout) this.#refuse(webSocket, REQUEST_TIMEOUT);
  }

  #beat(webSocket, visitor) {
    if (!visitor.address || webSocket.readyState !== WebSocket.OPEN) return;
    webSocket.ping();
    webSocket.send(JSON.stringify({ type: 'heartbeat', ts: Date.now() }));
  }

  #guardIdleness(webSocket, visitor) {
    if (visitor.address && Date.now() - visitor.seen > this.options.clientTimeout) this.#drop(webSocket, REQUEST_TIMEOUT);
  }

  /** Before authentication: the text as it is. */
  #refuse(webSocket, text) {
    if (webSocket.readyState !== WebSocket.OPEN) return;
    webSocket.send(text);
    webSocket.close();
    this.emit('refused', text);
  }

  /** After it: the text as JSON. */
  #drop(webSocket, text) {
    if (webSocket.readyState !== WebSocket.OPEN) return;
    webSocket.send(JSON.stringify(text));
    webSocket.close();
    this.emit('refused', text);
  }

  #lose(webSocket, error) {
    webSocket.close();
    this.emit('error', error);
  }
}

/** Answers everything with 426; what else there is to do, its events tell. Before TLS is agreed on, it can only hang up. */
export function httpServer({ tls, authTimeout = 5000 }) {
  const answer = (_, response) => response.writeHead(426).end();
  return tls ? createSecureServer({ ...tls, handshakeTimeout: authTimeout }, answer) : createServer(answer);
}
