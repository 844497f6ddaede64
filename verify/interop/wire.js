// What both sides of Link v1 write: the refusals, and the one message of the handshake.

import { Wallet } from './wallet.js';

export const UNAUTHORIZED = 'HTTP/1.1 401 Unauthorized\r\n\r\n';
export const FORBIDDEN = 'HTTP/1.1 403 Forbidden\r\n\r\n';
export const REQUEST_TIMEOUT = 'HTTP/1.1 408 Request Timeout\r\n\r\n';
export const CONFLICT = 'HTTP/1.1 409 Conflict\r\n\r\n';

export function authenticate(wallet, timestamp = Date.now()) {
  return { type: 'authenticate', address: wallet.address, timestamp, signature: wallet.sign(String(timestamp)) };
}

/** Whether the signature of an `authenticate` gives its address. Says nothing of its age. */
export function isSigned({ address, timestamp, signature }) {
  return Wallet.verify(address, String(timestamp), signature);
}

/** The JSON value of a frame, text or binary alike; throws when it holds none. */
export function parse(bytes) {
  return JSON.parse(bytes.toString('utf8'));
}
