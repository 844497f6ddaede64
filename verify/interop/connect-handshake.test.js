// `edge-link connect` at a JavaScript server: the handshake and what follows it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { javaScriptServer, serverByHand, typeOf, typesSent } from './by-hand.js';
import { connect } from './edge-link.js';
import { Wallet } from './wallet.js';
import { authenticate, isSigned } from './wire.js';

test('the client speaks first, with one authenticate of four fields in a text frame', async (t) => {
  const server = await javaScriptServer(t);
  const client = connect(t, server.url);
  await client.events.first('authenticated');
  const [first] = server.frames;
  const proof = JSON.parse(first.text);
  assert.equal(first.binary, false);
  assert.deepEqual(Object.keys(proof).sort(), ['address', 'signature', 'timestamp', 'type']);
  assert.equal(proof.type, 'authenticate');
  assert.ok(Number.isSafeInteger(proof.timestamp) && Math.abs(proof.timestamp - Date.now()) < 15_000, `timestamp ${proof.timestamp} at ${Date.now()}`);
  assert.match(first.text, /"timestamp":\s*\d{13}[,}]/, 'the timestamp is plain digits');
  assert.match(proof.signature, /^[0-9a-f]{128}0[01]$/);
  assert.ok(Wallet.isAddress(proof.address) && isSigned(proof), 'the signature gives the address');
});

test('the client tells of being connected, then of being authenticated by that server', async (t) => {
  const server = await javaScriptServer(t);
  const client = connect(t, server.url);
  assert.equal((await client.events.first('authenticated')).server, server.address);
  assert.deepEqual(client.events.entries.slice(0, 2).map(({ event }) => event), ['connected', 'authenticated']);
  await server.seen.first('authenticated');
});

test('the client is the wallet of the key it was given, leading zeros or not', async (t) => {
  for (const key of ['abc', '1', '2c466d756cda407ea7268753ac984c63a7365828c5a5f1caaac374ef710126f']) {
    const wallet = new Wallet(key);
    const server = await javaScriptServer(t);
    connect(t, server.url, [], { wallet: { privateKey: key } });
    assert.deepEqual((await server.seen.first('authenticated')).values, [wallet.address]);
  }
});

test('what it is told to send comes back, and it leaves with 0 after so many messages', async (t) => {
  const server = await javaScriptServer(t, { echo: true });
  const messages = [{ type: 'one', of: 'Ωμέγα \u{1F517}' }, { type: 'two', list: [1, null, { deep: true }] }, { type: 'three' }];
  const client = connect(t, server.url, [...messages.flatMap((message) => ['--send', JSON.stringify(message)]), '--count', '3']);
  const { code } = await client.exited();
  assert.equal(code, 0, client.told());
  assert.deepEqual(server.seen.all('message').map(({ values: [, message] }) => message), messages);
  assert.deepEqual(client.events.all('message').map(({ message }) => message), messages);
  assert.ok(server.frames.every(({ binary }) => !binary), 'text frames only');
});

test('what the server says right after its answer is delivered', async (t) => {
  const server = await javaScriptServer(t);
  server.on('authenticated', (address) => {
    for (let n = 0; n < 20; n += 1) server.send(address, { type: 'at once', n });
  });
  const client = connect(t, server.url, ['--count', '20']);
  const { code } = await client.exited();
  assert.equal(code, 0, client.told());
  assert.deepEqual(client.events.all('message').map(({ message }) => message.n), Array.from({ length: 20 }, (_, n) => n));
  const names = client.events.entries.map(({ event }) => event);
  assert.ok(names.indexOf('authenticated') < names.indexOf('message'), 'and not before the server was verified');
});

test('messages of any JSON value, and large ones, are delivered', async (t) => {
  const server = await javaScriptServer(t);
  const values = [{ type: 'large', text: 'µ'.repeat(250_000) }, [1, 2], 'text', 42, true, { 'no type': {} }, { type: 'disconnect' }, { type: 'error' }];
  server.on('authenticated', (address) => values.forEach((value) => server.send(address, value)));
  const client = connect(t, server.url);
  const events = await client.events.several(values.length, 'message');
  assert.deepEqual(events.map(({ message }) => message), values);
});

test('heartbeats are answered at both layers, each with its own time', async (t) => {
  const server = await javaScriptServer(t, { heartbeatInterval: 100 });
  const client = connect(t, server.url);
  await client.events.first('authenticated');
  const answers = await server.seen.several(10, 'heartbeat');
  await server.seen.several(10, 'pong');
  for (const { values: [, ts] } of answers) assert.ok(Number.isSafeInteger(ts) && Math.abs(ts - Date.now()) < 15_000, `its own time: ${ts}`);
  assert.deepEqual(server.seen.all('message'), [], 'no answer is a message');
  assert.deepEqual(client.events.all('message'), [], 'no heartbeat is a message');
});

test('a client that answers its heartbeats is not idle', async (t) => {
  const server = await javaScriptServer(t, { heartbeatInterval: 100, clientTimeout: 1000, clientTimeoutInterval: 100 });
  const client = connect(t, server.url);
  await server.seen.several(30, 'heartbeat');
  assert.deepEqual(server.seen.all('disconnected'), []);
  assert.deepEqual(client.events.all('disconnected'), []);
});

test('a ping is answered with the same payload', async (t) => {
  const server = await serverByHand(t, async (peer) => {
    await peer.message('authenticate');
    peer.say(authenticate(new Wallet()));
    ['', 'payload', 'p'.repeat(125)].forEach((payload) => peer.webSocket.ping(payload));
  });
  connect(t, server.url);
  await server.seen.first('connected');
  const pongs = await server.peers[0].seen.several(3, 'pong');
  assert.deepEqual(pongs.map(({ payload }) => payload), ['', 'payload', 'p'.repeat(125)]);
});

test('heartbeats are answered before authentication too, and nothing of the application is sent before the answer', async (t) => {
  const wallet = new Wallet();
  const server = await serverByHand(t, async (peer) => {
    peer.say({ type: 'heartbeat', ts: Date.now() });
    peer.webSocket.ping('early');
    await peer.message('authenticate');
    await peer.message('heartbeat');
    await peer.seen.first('pong', ({ payload }) => payload === 'early');
    for (let beats = 2; beats <= 4; beats += 1) {
      peer.say({ type: 'heartbeat', ts: Date.now() });
      await peer.seen.several(beats, 'frame', ({ text }) => typeOf(text) === 'heartbeat');
    }
    peer.typesBeforeTheAnswer = typesSent(peer);
    peer.say(authenticate(wallet));
  });
  const client = connect(t, server.url, ['--send', '{"type":"patient"}']);
  await client.events.first('authenticated', (event) => event.server === wallet.address);
  const [peer] = server.peers;
  await peer.message('patient');
  assert.deepEqual(peer.typesBeforeTheAnswer, ['authenticate', 'heartbeat', 'heartbeat', 'heartbeat', 'heartbeat']);
});

test('nothing of the application is delivered before the server is verified', async (t) => {
  const server = await serverByHand(t, async (peer) => {
    await peer.message('authenticate');
    peer.say({ type: 'early' }).say(authenticate(new Wallet())).say({ type: 'in time' });
  });
  const client = connect(t, server.url, ['--max-reconnect-attempts', '1', '--reconnect-delay', '10ms']);
  // Whether it leaves such a server or passes the early message over, is its own affair.
  await client.events.until((all) => all.some(({ event, message }) => message?.type === 'in time' || event === 'disconnected' || event === 'connection_failed'), 'the message in time, or the end');
  assert.deepEqual(client.events.all('message').filter(({ message }) => message.type === 'early'), []);
});

test('the answer may be a binary frame', async (t) => {
  const server = await serverByHand(t, async (peer) => {
    await peer.message('authenticate');
    peer.say(Buffer.from(JSON.stringify(authenticate(new Wallet()))));
  });
  await connect(t, server.url).events.first('authenticated');
});

test('the server that is expected is taken, also as one of several', async (t) => {
  const server = await javaScriptServer(t, { echo: true });
  const client = connect(t, server.url, ['--pin', new Wallet().address, '--pin', server.address, '--send', '{"type":"hello"}', '--count', '1']);
  const { code } = await client.exited();
  assert.equal(code, 0, client.told());
});

test('a second authenticate never changes who the server is', async (t) => {
  const [first, other] = [new Wallet(), new Wallet()];
  const server = await serverByHand(t, async (peer) => {
    await peer.message('authenticate');
    peer.say(authenticate(first)).say(authenticate(other)).say({ type: 'afterwards' });
  });
  const client = connect(t, server.url, ['--max-reconnect-attempts', '1', '--reconnect-delay', '10ms']);
  await client.events.until((all) => all.some(({ event, message }) => message?.type === 'afterwards' || event === 'disconnected'), 'the message afterwards, or the end');
  assert.ok(client.events.all('authenticated').every((event) => event.server === first.address));
});
