// JavaScript clients of `edge-link serve`: the handshake and what follows it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { authenticatedClient, freshTimestamp, javaScriptClient, typeOf, upgradeByHand, visit, visitAs } from './by-hand.js';
import { serve } from './edge-link.js';
import { scheme } from './over-tls.js';
import { Wallet } from './wallet.js';
import { authenticate, isSigned } from './wire.js';

test('the first line of the server tells its URL and its address', async (t) => {
  const server = await serve(t);
  assert.equal(server.events.entries[0].event, 'listening');
  assert.match(server.url, new RegExp(`^${scheme}://127\\.0\\.0\\.1:[1-9][0-9]*/?$`));
  assert.ok(Wallet.isAddress(server.address), server.address);
});

test('the server answers an authenticate with its own address, its own time and its own signature', async (t) => {
  const server = await serve(t);
  const wallet = new Wallet();
  const visitor = await visit(t, server.url);
  const before = Date.now();
  visitor.say(authenticate(wallet));
  const frame = await visitor.seen.first('frame');
  const answer = JSON.parse(frame.text);
  assert.equal(frame.binary, false, 'the answer is a text frame');
  assert.deepEqual(Object.keys(answer).sort(), ['address', 'signature', 'timestamp', 'type']);
  assert.equal(answer.type, 'authenticate');
  assert.equal(answer.address, server.address);
  assert.ok(Number.isSafeInteger(answer.timestamp) && Math.abs(answer.timestamp - before) < 5000, `timestamp ${answer.timestamp} at ${before}`);
  assert.match(answer.signature, /^[0-9a-f]{128}0[01]$/);
  assert.ok(isSigned(answer), 'the signature gives the address');
  assert.equal((await server.events.first('authenticated')).client, wallet.address);
});

test('the server says nothing before the client has spoken', async (t) => {
  const server = await serve(t, '--heartbeat-interval', '50ms', '--auth-timeout', '1s');
  const visitor = await visit(t, server.url);
  const frames = await visitor.framesUntilClosed();
  assert.equal(frames.length, 1, `only the refusal: ${JSON.stringify(frames)}`);
  assert.deepEqual(visitor.seen.all('ping'), []);
});

test('a JavaScript client authenticates, and its messages come back', async (t) => {
  const server = await serve(t, '--echo');
  const client = await authenticatedClient(t, server.url);
  assert.deepEqual((await client.seen.first('authenticated')).values, [server.address]);
  const questions = Array.from({ length: 50 }, (_, n) => ({ type: 'question', n, of: 'Ωμέγα \u{1F517} "\\" \u0000', deep: { list: [1, null, 1.5, {}] } }));
  questions.forEach((question) => client.send(question));
  const answers = await client.seen.several(50, 'message');
  assert.deepEqual(answers.map(({ values }) => values[0]), questions);
  const events = await server.events.several(50, 'message');
  assert.deepEqual(events.map(({ client, message }) => ({ client, message })), questions.map((message) => ({ client: client.address, message })));
});

test('a binary frame that holds JSON is as good as a text frame, the authenticate too', async (t) => {
  const server = await serve(t, '--echo');
  const wallet = new Wallet();
  const visitor = await visit(t, server.url);
  visitor.say(Buffer.from(JSON.stringify(authenticate(wallet))));
  await visitor.message('authenticate');
  visitor.say(Buffer.from('{"type":"in bytes"}')).say('{"type":"in text"}');
  await visitor.message('in bytes');
  await visitor.message('in text');
  assert.ok(visitor.seen.all('frame').every(({ binary }) => !binary), 'the server itself sends text frames only');
});

test('a message may come in fragments with a ping between them', async (t) => {
  const server = await serve(t, '--echo');
  const visitor = await visitAs(t, server.url, new Wallet());
  visitor.webSocket.send('{"type":"in', { fin: false });
  visitor.webSocket.send(' three', { fin: false });
  visitor.webSocket.ping('between');
  visitor.webSocket.send(' pieces"}', { fin: true });
  await visitor.message('in three pieces');
  assert.equal((await visitor.seen.first('pong')).payload, 'between');
});

test('a message of half a mebibyte goes both ways', async (t) => {
  const server = await serve(t, '--echo');
  const client = await authenticatedClient(t, server.url);
  const large = { type: 'large', text: 'µ'.repeat(250_000) };
  client.send(large);
  assert.deepEqual((await client.seen.first('message')).values, [large]);
});

test('any JSON value is a message', async (t) => {
  const server = await serve(t);
  const visitor = await visitAs(t, server.url, new Wallet());
  const values = [[1, 2], 'text', 42, true, { type: 'disconnect' }, { type: 'error', of: 'theirs' }, { 'no type': true }];
  values.forEach((value) => visitor.say(JSON.stringify(value)));
  const events = await server.events.several(values.length, 'message');
  assert.deepEqual(events.map(({ message }) => message), values);
});

test('a frame that is not JSON keeps the connection', async (t) => {
  const server = await serve(t, '--echo');
  const visitor = await visitAs(t, server.url, new Wallet());
  visitor.say('not JSON').say('').say(Buffer.from([0xff, 0x00, 0xfe])).say('{"type":"still here"}');
  await visitor.message('still here');
});

test('an offer of permessage-deflate is declined, no subprotocol is needed and any path is taken', async (t) => {
  const server = await serve(t, '--echo');
  for (const path of ['', '/', '/any/path', '/?and=query', '/%20']) {
    const client = await authenticatedClient(t, server.url.replace(/\/$/, '') + path);
    assert.deepEqual(client.negotiated, { extensions: '', protocol: '' }, `for the path “${path}”`);
    client.send({ type: 'over', path });
    assert.deepEqual((await client.seen.first('message')).values, [{ type: 'over', path }]);
  }
  const plain = await authenticatedClient(t, server.url, { socketOptions: { perMessageDeflate: false } });
  assert.deepEqual(plain.negotiated, { extensions: '', protocol: '' });
});

test('an authenticate that comes a byte at a time is read', async (t) => {
  const server = await serve(t);
  const socket = await upgradeByHand(t, server.url);
  const proof = Buffer.from(JSON.stringify(authenticate(new Wallet())));
  const mask = Buffer.from([1, 2, 3, 4]);
  const frame = Buffer.concat([Buffer.from([0x81, 0x80 | 126, proof.length >> 8, proof.length & 0xff]), mask, proof.map((byte, i) => byte ^ mask[i % 4])]);
  for (const byte of frame) socket.write(Buffer.of(byte));
  await server.events.first('authenticated');
});

test('signatures in upper-case hex are taken', async (t) => {
  const server = await serve(t);
  const visitor = await visit(t, server.url);
  const proof = authenticate(new Wallet());
  visitor.say({ ...proof, signature: proof.signature.toUpperCase() });
  await visitor.message('authenticate');
});

test('fields that v1 does not know are passed over in an authenticate', async (t) => {
  const server = await serve(t);
  const visitor = await visit(t, server.url);
  visitor.say({ ...authenticate(new Wallet()), version: 7, extra: { list: [] } });
  await visitor.message('authenticate');
});

test('a second authenticate never changes who a client is', async (t) => {
  const server = await serve(t, '--echo');
  const [first, other] = [new Wallet(), new Wallet()];
  const visitor = await visitAs(t, server.url, first);
  visitor.say(authenticate(other, freshTimestamp())).say({ type: 'afterwards' });
  await visitor.seen.until((all) => all.some(({ event, text }) => event === 'closed' || (event === 'frame' && typeOf(text) === 'afterwards')), 'an echo, or the end');
  const honest = await authenticatedClient(t, server.url);
  await server.events.first('authenticated', ({ client }) => client === honest.address);
  assert.ok(!JSON.stringify(server.events.entries).includes(`"client":"${other.address}"`), 'nothing is told of the other address as a client');
});

test('many clients are served beside one another', async (t) => {
  const server = await serve(t, '--echo');
  const clients = Array.from({ length: 10 }, () => javaScriptClient(t, server.url));
  await Promise.all(clients.map((client) => client.seen.first('authenticated')));
  clients.forEach((client) => client.send({ type: 'mine', address: client.address }));
  for (const client of clients) assert.deepEqual((await client.seen.first('message')).values, [{ type: 'mine', address: client.address }]);
});

test('a client that leaves, politely or not, is told as disconnected with a reason', async (t) => {
  const server = await serve(t);
  const [polite, abrupt] = [new Wallet(), new Wallet()];
  (await visitAs(t, server.url, polite)).webSocket.close();
  (await visitAs(t, server.url, abrupt)).webSocket.terminate();
  for (const { address } of [polite, abrupt]) {
    const { reason } = await server.events.first('disconnected', ({ client }) => client === address);
    assert.ok(reason, 'a reason is given');
  }
});

test('the same address may come back after it has left, also to a server that replaces nobody', async (t) => {
  const server = await serve(t, '--no-replace');
  const wallet = new Wallet();
  for (let visits = 1; visits <= 3; visits += 1) {
    const visitor = await visitAs(t, server.url, wallet);
    visitor.webSocket.close();
    await server.events.several(visits, 'disconnected');
  }
});

test('an interrupted server closes its connections and leaves with 0', async (t) => {
  const server = await serve(t);
  const client = await authenticatedClient(t, server.url, { maxReconnectAttempts: 0 });
  server.interrupt();
  await client.seen.first('disconnected');
  const { code } = await server.exited();
  assert.equal(code, 0, server.told());
});
