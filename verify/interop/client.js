// The client of Link v1 as JavaScript peers know it: it takes an answer of any age, and waits one delay longer after each
// failure, counted from the last socket that opened.

import { EventEmitter } from 'node:events';
import { WebSocket } from 'ws';
import { authenticate, isSigned, parse } from './wire.js';
import { Wallet } from './wallet.js';

/**
 * Emits `connected`, `authenticated` (the server's address), `message` (value, or the string of a frame that is not JSON; so
 * refusals come out here too), `heartbeat` (ts), `ping` (payload), `disconnected` (code), `reconnecting` (attempt, delay),
 * `connection_failed`, `error` and, for whoever counts bytes, `frame` (bytes, binary).
 * `socketOptions` go to `ws`, which offers permessage-deflate unless told otherwise, and trusts the authorities of `ca`.
 */
export class Client extends EventEmitter {
  #socket;
  #attempt = 0;
  #retry;
  #ended = false;
  #server = null;

  constructor({ url, wallet = new Wallet(), maxReconnectAttempts = 5, reconnectDelay = 1000, now = Date.now, socketOptions = {} }) {
    super();
    this.options = { url, wallet, maxReconnectAttempts, reconnectDelay, now, socketOptions };
    this.on('error', () => {});
  }

  get address() {
    return this.options.wallet.address;
  }

  get isAuthenticated() {
    return this.#server !== null;
  }

  /** What the server answered to the upgrade's offer of extensions and subprotocols; empty when it took up none. */
  get negotiated() {
    return { extensions: this.#socket.extensions, protocol: this.#socket.protocol };
  }

  connect() {
    const socket = new WebSocket(this.options.url, this.options.socketOptions);
    this.#socket = socket;
    socket.on('open', () => {
      this.#attempt = 0;
      socket.send(JSON.stringify(authenticate(this.options.wallet, this.options.now())));
      this.emit('connected');
    });
    socket.on('message', (bytes, binary) => this.#onFrame(bytes, binary));
    socket.on('ping', (payload) => this.emit('ping', payload)); // `ws` has answered it already
    socket.on('error', (error) => this.emit('error', error));
    socket.on('close', (code) => {
      this.#server = null;
      this.emit('disconnected', code);
      if (!this.#ended) this.#reconnect();
    });
    return this;
  }

  send(message, { binary = false } = {}) {
    if (!this.isAuthenticated) throw new Error('nothing may be sent before the server has answered');
    this.#socket.send(JSON.stringify(message), { binary });
  }

  /** Ends the client for good. */
  async disconnect() {
    this.#ended = true;
    clearTimeout(this.#retry);
    const socket = this.#socket;
    if (!socket || socket.readyState === WebSocket.CLOSED) return;
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.close();
    const lost = setTimeout(() => socket.terminate(), 1000); // a server that is gone answers no close
    await closed;
    clearTimeout(lost);
  }

  #onFrame(bytes, binary) {
    this.emit('frame', bytes, binary);
    let message;
    try {
      message = parse(bytes);
    } catch {
      message = bytes.toString('utf8');
    }
    if (message?.type === 'heartbeat') this.#onHeartbeat(message);
    else if (message?.type === 'authenticate' && !this.isAuthenticated) this.#onAnswer(message);
    else this.emit('message', message);
  }

  #onHeartbeat({ ts }) {
    this.#socket.send(JSON.stringify({ type: 'heartbeat', ts: this.options.now() }));
    this.emit('heartbeat', ts);
  }

  #onAnswer(answer) {
    let signed = false;
    try {
      signed = isSigned(answer);
    } catch (error) {
      this.emit('error', error);
    }
    if (!signed) {
      this.#socket.close();
      return;
    }
    this.#server = answer.address;
    this.emit('authenticated', answer.address);
  }

  #reconnect() {
    this.#attempt += 1;
    if (this.#attempt > this.options.maxReconnectAttempts) {
      this.emit('connection_failed');
      return;
    }
    const delay = this.options.reconnectDelay * this.#attempt;
    this.emit('reconnecting', this.#attempt, delay);
    this.#retry = setTimeout(() => this.connect(), delay);
  }
}
