// JavaScript clients of `edge-link serve`: heartbeats, and who is idle.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { authenticatedClient, typeOf, visit, visitAs } from './by-hand.js';
import { serve } from './edge-link.js';
import { Wallet } from './wallet.js';
import { REQUEST_TIMEOUT } from './wire.js';

const IMPATIENT = ['--heartbeat-interval', '100ms', '--client-timeout', '1s'];

test('every interval the server sends a ping and a heartbeat with its own time', async (t) => {
  const server = await serve(t, '--heartbeat-interval', '200ms');
  const visitor = await visitAs(t, server.url, new Wallet());
  const start = Date.now();
  const isHeartbeat = ({ text }) => typeOf(text) === 'heartbeat';
  const beats = (await visitor.seen.several(6, 'frame', isHeartbeat)).map(({ text, binary }) => ({ ...JSON.parse(text), binary }));
  const took = Date.now() - start;
  await visitor.seen.several(6, 'ping');
  for (const beat of beats) {
    assert.deepEqual(Object.keys(beat), ['type', 'ts', 'binary']);
    assert.equal(beat.binary, false);
    assert.ok(Number.isSafeInteger(beat.ts) && Math.abs(beat.ts - start) < 15_000, `its own time in milliseconds: ${beat.ts} at ${start}`);
  }
  assert.ok(beats.every(({ ts }, i) => i === 0 || ts >= beats[i - 1].ts), 'time goes forwards');
  assert.ok(took >= 900, `six heartbeats are at least five intervals of 200 ms: took ${took} ms`);
  const difference = visitor.seen.all('ping').length - visitor.seen.all('frame').filter(isHeartbeat).length;
  assert.ok(Math.abs(difference) <= 1, `as many pings as heartbeats: ${difference} more`);
});

test('without being told otherwise it beats each second', async (t) => {
  const server = await serve(t);
  const client = await authenticatedClient(t, server.url);
  const [first, second, third] = (await client.seen.several(3, 'heartbeat')).map(({ values: [ts] }) => ts);
  for (const gap of [second - first, third - second]) assert.ok(gap > 500 && gap < 3000, `a gap of ${gap} ms`);
});

test('the answers of a JavaScript client are told with -v, and are no messages', async (t) => {
  const server = await serve(t, '-v', ...IMPATIENT);
  const client = await authenticatedClient(t, server.url);
  await server.events.several(3, 'heartbeat', (event) => event.client === client.address);
  assert.deepEqual(server.events.all('message'), []);
});

test('a client idle for longer than the client timeout is dropped with a quoted 408', async (t) => {
  const server = await serve(t, ...IMPATIENT);
  const wallet = new Wallet();
  const visitor = await visitAs(t, server.url, wallet, { autoPong: false });
  const last = (await visitor.framesUntilClosed()).at(-1);
  assert.deepEqual(last, { text: JSON.stringify(REQUEST_TIMEOUT), binary: false });
  assert.equal(last.text, '"HTTP/1.1 408 Request Timeout\\r\\n\\r\\n"');
  const { reason } = await server.events.first('disconnected', ({ client }) => client === wallet.address);
  assert.ok(reason, 'a reason is given');
});

test('pongs alone are activity enough', async (t) => {
  const server = await serve(t, ...IMPATIENT);
  const visitor = await visitAs(t, server.url, new Wallet());
  await visitor.seen.several(30, 'ping'); // thrice the timeout
  assert.deepEqual(visitor.seen.all('closed'), []);
});

test('messages alone are activity enough', async (t) => {
  const server = await serve(t, ...IMPATIENT);
  const visitor = await visitAs(t, server.url, new Wallet(), { autoPong: false });
  visitor.webSocket.on('ping', () => visitor.say({ type: 'here' }));
  await visitor.seen.several(30, 'ping');
  assert.deepEqual(visitor.seen.all('closed'), []);
});

test('a JavaScript client that only answers heartbeats stays for as long as it likes', async (t) => {
  const server = await serve(t, ...IMPATIENT);
  const client = await authenticatedClient(t, server.url);
  await client.seen.several(30, 'heartbeat');
  assert.deepEqual(client.seen.all('disconnected'), []);
});

test('a ping of the client is answered with its own payload, before authentication too', async (t) => {
  const server = await serve(t);
  const visitor = await visit(t, server.url);
  visitor.webSocket.ping('early');
  assert.equal((await visitor.seen.first('pong')).payload, 'early');
});
