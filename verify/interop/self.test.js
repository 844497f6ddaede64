// The peer against itself: what the other files rely on.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { authenticatedClient, freshTimestamp, heardByDialling, javaScriptClient, javaScriptServer, serverByHand, typesSent, visit, visitAs } from './by-hand.js';
import { ONLY_OVER_TLS, misread } from './over-tls.js';
import { Wallet } from './wallet.js';
import { CONFLICT, FORBIDDEN, REQUEST_TIMEOUT, UNAUTHORIZED, authenticate } from './wire.js';

const anHour = 3_600_000;

test('both sides authenticate, and messages go both ways', async (t) => {
  const server = await javaScriptServer(t, { echo: true, heartbeatInterval: 0 });
  const client = await authenticatedClient(t, server.url);
  assert.deepEqual((await client.seen.first('authenticated')).values, [server.address]);
  assert.deepEqual((await server.seen.first('authenticated')).values, [client.address]);
  client.send({ type: 'question', of: 'Ωμέγα' });
  client.send({ type: 'question', of: 'bytes' }, { binary: true });
  const [text, bytes] = await client.seen.several(2, 'message');
  assert.deepEqual(text.values, [{ type: 'question', of: 'Ωμέγα' }]);
  assert.deepEqual(bytes.values, [{ type: 'question', of: 'bytes' }]);
  assert.deepEqual(server.frames.map(({ binary }) => binary), [false, false, true]);
});

test('a client offers permessage-deflate and the server does not take it up', async (t) => {
  const server = await javaScriptServer(t);
  const client = await authenticatedClient(t, server.url);
  assert.deepEqual(client.negotiated, { extensions: '', protocol: '' });
  let offered;
  const listener = await serverByHand(t, (peer) => peer.say(authenticate(new Wallet())), {
    verifyClient: ({ req }) => ((offered = req.headers), true),
  });
  await authenticatedClient(t, listener.url);
  assert.match(offered['sec-websocket-extensions'], /^permessage-deflate/);
  assert.equal(offered['sec-websocket-protocol'], undefined);
});

test('a client may not send before the server has answered', async (t) => {
  const { url } = await serverByHand(t, () => {});
  const client = javaScriptClient(t, url);
  await client.seen.first('connected');
  assert.throws(() => client.send({ type: 'early' }));
});

test('heartbeats come as a ping and as a message, and are answered as both, before the answer too', async (t) => {
  const server = await javaScriptServer(t, { heartbeatInterval: 50 });
  const client = await authenticatedClient(t, server.url);
  await client.seen.several(3, 'heartbeat');
  await client.seen.several(3, 'ping');
  await server.seen.several(3, 'heartbeat', ({ values: [address, ts] }) => address === client.address && Number.isSafeInteger(ts));
  await server.seen.several(3, 'pong');

  const early = await serverByHand(t, (peer) => peer.say({ type: 'heartbeat', ts: 1 }));
  javaScriptClient(t, early.url);
  await early.seen.first('connected');
  await early.peers[0].seen.several(2, 'frame');
  assert.deepEqual(typesSent(early.peers[0]), ['authenticate', 'heartbeat']);
});

test('each refusal before authentication is its text, raw', async (t) => {
  const wallet = new Wallet();
  const stranger = new Wallet();
  const cases = [
    [UNAUTHORIZED, {}, authenticate(wallet, Date.now() - anHour)],
    [UNAUTHORIZED, {}, authenticate(wallet, Date.now() + anHour)],
    [UNAUTHORIZED, {}, { ...authenticate(wallet), signature: stranger.sign('something else') }],
    [FORBIDDEN, { whitelist: [stranger.address] }, authenticate(wallet)],
    [FORBIDDEN, { onAuthenticate: async () => false }, authenticate(wallet)],
    [REQUEST_TIMEOUT, { authTimeout: 100, authCheckInterval: 20 }, null],
  ];
  for (const [text, options, proof] of cases) {
    const server = await javaScriptServer(t, options);
    const visitor = await visit(t, server.url);
    if (proof) visitor.say(proof);
    assert.deepEqual(await visitor.framesUntilClosed(), [{ text, binary: false }]);
    assert.equal((await visitor.seen.first('closed')).code, 1005);
  }
});

test('a second connection of an address is refused or replaces the first, as the server is told', async (t) => {
  const wallet = new Wallet();
  const keeping = await javaScriptServer(t, { replaceExisting: false });
  const first = await visitAs(t, keeping.url, wallet);
  const second = await visit(t, keeping.url);
  second.say(authenticate(wallet, freshTimestamp()));
  assert.deepEqual(await second.framesUntilClosed(), [{ text: CONFLICT, binary: false }]);
  assert.deepEqual(keeping.clients, [wallet.address]);
  assert.deepEqual(first.seen.all('closed'), []);

  const replacing = await javaScriptServer(t);
  const old = await visitAs(t, replacing.url, wallet);
  await visitAs(t, replacing.url, wallet);
  assert.equal((await old.framesUntilClosed()).at(-1).text, JSON.stringify(CONFLICT));
  assert.deepEqual(replacing.clients, [wallet.address]);
});

test('an idle client is dropped with a quoted 408', async (t) => {
  const server = await javaScriptServer(t, { heartbeatInterval: 50, clientTimeout: 200, clientTimeoutInterval: 50 });
  const visitor = await visitAs(t, server.url, new Wallet(), { autoPong: false });
  assert.equal((await visitor.framesUntilClosed()).at(-1).text, JSON.stringify(REQUEST_TIMEOUT));
});

test('a connection that never upgrades gets a plain 408', async (t) => {
  const server = await javaScriptServer(t, { authTimeout: 200 });
  assert.equal(await heardByDialling(t, server.url), REQUEST_TIMEOUT);
  assert.equal(await heardByDialling(t, server.url, 'GET / HTTP/1.1\r\nhost: here\r\n'), REQUEST_TIMEOUT);
});

test('a connection that never speaks TLS to a server that does is hung up on', ONLY_OVER_TLS, async (t) => {
  const server = await javaScriptServer(t, { authTimeout: 200 });
  assert.equal(await heardByDialling(t, misread(server.url)), '');
});

test('a first frame that is not an authenticate closes without a text', async (t) => {
  const server = await javaScriptServer(t);
  for (const frame of ['not JSON', '{"type":"hello"}', 'null', '{"type":"authenticate"}']) {
    const visitor = await visit(t, server.url);
    assert.deepEqual(await visitor.say(frame).framesUntilClosed(), []);
  }
});

test('a client delivers a refusal as a string, and dials again and again', async (t) => {
  const server = await javaScriptServer(t, { whitelist: [] });
  const client = javaScriptClient(t, server.url, { reconnectDelay: 10, maxReconnectAttempts: 1 });
  const refusals = await client.seen.several(3, 'message');
  assert.deepEqual(refusals.map(({ values }) => values[0]), [FORBIDDEN, FORBIDDEN, FORBIDDEN]);
  assert.deepEqual(client.seen.all('connection_failed'), [], 'the counter was reset each time the socket opened');
});

test('a client waits one delay longer after each failure and then gives up', async (t) => {
  const server = await javaScriptServer(t);
  const client = await authenticatedClient(t, server.url, { reconnectDelay: 10, maxReconnectAttempts: 3 });
  await server.close();
  await client.seen.first('connection_failed');
  assert.deepEqual(client.seen.all('reconnecting').map(({ values }) => values), [[1, 10], [2, 20], [3, 30]]);
});

test('a client comes back to a server that was started again on the same port', async (t) => {
  const server = await javaScriptServer(t);
  const client = await authenticatedClient(t, server.url, { reconnectDelay: 20 });
  await server.close();
  await javaScriptServer(t, { port: Number(new URL(client.options.url).port) });
  await client.seen.several(2, 'authenticated');
});

test('a server whose answer has a wrong signature is left', async (t) => {
  const server = await serverByHand(t, (peer) => peer.say({ ...authenticate(new Wallet()), address: new Wallet().address }));
  const client = javaScriptClient(t, server.url, { maxReconnectAttempts: 0 });
  await client.seen.first('disconnected');
  assert.deepEqual(client.seen.all('authenticated'), []);
});

test('a frame that is not JSON loses no connection', async (t) => {
  const server = await javaScriptServer(t, { echo: true });
  const visitor = await visitAs(t, server.url, new Wallet());
  visitor.say('not JSON');
  const [error] = await once(server, 'error');
  assert.ok(error instanceof SyntaxError);
  visitor.say({ type: 'still here' });
  await visitor.message('still here');
});
