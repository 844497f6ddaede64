// JavaScript clients of `edge-link serve`: every refusal, to the byte.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { authenticatedClient, freshTimestamp, heardByDialling, javaScriptClient, visit, visitAs } from './by-hand.js';
import { serve } from './edge-link.js';
import { Wallet, highS } from './wallet.js';
import { CONFLICT, FORBIDDEN, REQUEST_TIMEOUT, UNAUTHORIZED, authenticate } from './wire.js';

/** Says `frame` as the first of a connection, which gets that one text and is closed. */
async function isRefused(t, server, frame, text, name) {
  const visitor = await visit(t, server.url);
  visitor.say(frame);
  assert.deepEqual(await visitor.framesUntilClosed(), [{ text, binary: false }], name);
}

/** Says `frame` as the first of a connection, which is closed without an answer that lets it in. */
async function isNotLetIn(t, server, frame, name) {
  const visitor = await visit(t, server.url);
  visitor.say(frame);
  const frames = await visitor.framesUntilClosed();
  assert.ok(frames.length === 0 || (frames.length === 1 && frames[0].text === UNAUTHORIZED), `${name}: ${JSON.stringify(frames)}`);
}

async function tellsRejection(server, status, wallet) {
  const event = await server.events.first('rejected', (event) => Number.parseInt(event.status, 10) === status);
  assert.ok(event.reason, 'a reason is given');
  if (wallet) assert.equal(event.client, wallet.address);
}

test('401 for a timestamp too far in the past or in the future', async (t) => {
  const server = await serve(t);
  for (const distance of [-3_600_000, -60_000, -8000, 8000, 60_000, 3_600_000]) {
    await isRefused(t, server, authenticate(new Wallet(), Date.now() + distance), UNAUTHORIZED, `${distance} ms from now`);
  }
  await tellsRejection(server, 401);
});

test('a timestamp within the window is taken, early or late', async (t) => {
  const server = await serve(t);
  for (const distance of [-2000, 0, 2000]) {
    const visitor = await visit(t, server.url);
    visitor.say(authenticate(new Wallet(), Date.now() + distance));
    await visitor.message('authenticate');
  }
});

test('401 for a signature that does not give the address', async (t) => {
  const server = await serve(t);
  const [one, other] = [new Wallet(), new Wallet()];
  const proof = authenticate(one);
  const flipped = proof.signature.slice(0, -1) + (proof.signature.endsWith('0') ? '1' : '0');
  await isRefused(t, server, { ...authenticate(one), signature: authenticate(other).signature }, UNAUTHORIZED, 'of another wallet');
  await isRefused(t, server, { ...authenticate(one), signature: one.sign('0') }, UNAUTHORIZED, 'of another text');
  await isRefused(t, server, { ...proof, signature: flipped }, UNAUTHORIZED, 'with the other recovery id');
  await isRefused(t, server, { ...proof, timestamp: proof.timestamp + 1 }, UNAUTHORIZED, 'of another timestamp');
  await tellsRejection(server, 401);
});

test('403 for an address that is not on the whitelist', async (t) => {
  const [one, two, stranger] = [new Wallet(), new Wallet(), new Wallet()];
  const server = await serve(t, '--whitelist', `${one.address},${two.address}`);
  await isRefused(t, server, authenticate(stranger), FORBIDDEN);
  await tellsRejection(server, 403, stranger);
  await visitAs(t, server.url, one);
  await visitAs(t, server.url, two);
});

test('401, not 403, for an unproved address that is not on the whitelist', async (t) => {
  const server = await serve(t, '--whitelist', new Wallet().address);
  await isRefused(t, server, { ...authenticate(new Wallet()), signature: new Wallet().sign('0') }, UNAUTHORIZED, 'no oracle of the whitelist');
});

test('408 for a client that does not authenticate', async (t) => {
  const server = await serve(t, '--auth-timeout', '500ms');
  const visitor = await visit(t, server.url);
  assert.deepEqual(await visitor.framesUntilClosed(), [{ text: REQUEST_TIMEOUT, binary: false }]);
  await tellsRejection(server, 408);
});

test('pings do not put off the 408', async (t) => {
  const server = await serve(t, '--auth-timeout', '500ms');
  const visitor = await visit(t, server.url);
  visitor.webSocket.on('pong', () => visitor.webSocket.ping());
  visitor.webSocket.ping();
  assert.deepEqual(await visitor.framesUntilClosed(), [{ text: REQUEST_TIMEOUT, binary: false }]);
});

test('a connection that never upgrades gets a plain 408 and is dropped', async (t) => {
  const server = await serve(t, '--auth-timeout', '500ms');
  for (const greeting of ['', 'GET / HTTP/1.1\r\nHost: here\r\n', 'G']) {
    const heard = await heardByDialling(t, server.url, greeting);
    assert.match(heard, /^HTTP\/1\.1 408 Request Timeout\r\n(?:[^\r\n]+\r\n)*\r\n/, `after ${JSON.stringify(greeting)}`);
  }
});

test('409 for an address that is connected already, if none is replaced, and the first goes on', async (t) => {
  const server = await serve(t, '--no-replace', '--echo');
  const wallet = new Wallet();
  const first = await visitAs(t, server.url, wallet);
  await isRefused(t, server, authenticate(wallet, freshTimestamp()), CONFLICT);
  await tellsRejection(server, 409, wallet);
  first.say({ type: 'still here' });
  await first.message('still here');
  assert.deepEqual(server.events.all('disconnected'), []);
});

test('a quoted 409 for a connection that a newer one replaces', async (t) => {
  const server = await serve(t, '--echo');
  const wallet = new Wallet();
  const first = await visitAs(t, server.url, wallet);
  const second = await visitAs(t, server.url, wallet);
  const last = (await first.framesUntilClosed()).at(-1);
  assert.deepEqual(last, { text: '"HTTP/1.1 409 Conflict\\r\\n\\r\\n"', binary: false });
  const { reason } = await server.events.first('disconnected', ({ client }) => client === wallet.address);
  assert.match(JSON.stringify(reason), /replac|409|conflict/i);
  second.say({ type: 'mine now' });
  await second.message('mine now');
  assert.deepEqual(second.seen.all('closed'), [], 'the end of the first does not touch its successor');
});

test('a replaced connection cannot speak any more', async (t) => {
  const server = await serve(t);
  const wallet = new Wallet();
  const first = await visitAs(t, server.url, wallet);
  first.webSocket.on('message', (bytes) => bytes.toString() === JSON.stringify(CONFLICT) && first.say({ type: 'late' }));
  const second = await visitAs(t, server.url, wallet);
  await first.seen.first('closed');
  second.say({ type: 'mine now' });
  await server.events.first('message', ({ message }) => message.type === 'mine now');
  assert.deepEqual(server.events.all('message').map(({ message }) => message.type), ['mine now']);
});

test('a client that was refused cannot authenticate on the same connection any more', async (t) => {
  const server = await serve(t, '--auth-timeout', '500ms');
  const [wallet, honest] = [new Wallet(), new Wallet()];
  const visitor = await visit(t, server.url);
  visitor.webSocket.on('message', () => visitor.say(authenticate(wallet)));
  await visitor.framesUntilClosed();
  await visitAs(t, server.url, honest);
  await server.events.first('authenticated', ({ client }) => client === honest.address);
  assert.equal(server.events.all('authenticated').length, 1);
});

test('a JavaScript client that is replaced is told so as it knows it', async (t) => {
  const server = await serve(t);
  const wallet = new Wallet();
  const client = await authenticatedClient(t, server.url, { wallet, maxReconnectAttempts: 0 });
  await visitAs(t, server.url, wallet, {});
  assert.deepEqual((await client.seen.first('message')).values, [CONFLICT]);
  await client.seen.first('disconnected');
});

test('a JavaScript client that is refused is told so as it knows it', async (t) => {
  const server = await serve(t, '--whitelist', new Wallet().address);
  const client = javaScriptClient(t, server.url, { maxReconnectAttempts: 0 });
  assert.deepEqual((await client.seen.first('message')).values, [FORBIDDEN]);
  await client.seen.first('disconnected');
});

test('closed without a text for a first frame that is not JSON or of another type', async (t) => {
  const server = await serve(t);
  for (const frame of ['not JSON', '', '{"type":"hello"}', '{"type":"heartbeat","ts":1}', '{}', Buffer.from([0xff, 0xfe])]) {
    const visitor = await visit(t, server.url);
    visitor.say(frame);
    assert.deepEqual(await visitor.framesUntilClosed(), [], `for ${JSON.stringify(frame)}`);
  }
});

test('the same authenticate does not work again, whether its owner is there or gone', async (t) => {
  const server = await serve(t, '--echo');
  const proof = authenticate(new Wallet());
  const owner = await visit(t, server.url);
  owner.say(proof);
  await owner.message('authenticate');
  await isRefused(t, server, proof, UNAUTHORIZED, 'while its owner is there');
  owner.say({ type: 'undisturbed' });
  await owner.message('undisturbed');
  owner.webSocket.close();
  await server.events.first('disconnected');
  await isRefused(t, server, proof, UNAUTHORIZED, 'after its owner has left');
  await isNotLetIn(t, server, { ...proof, signature: highS(proof.signature) }, 'in the high-S spelling');
  await isNotLetIn(t, server, { ...proof, signature: proof.signature.toUpperCase() }, 'in capitals');
  await isNotLetIn(t, server, { ...proof, signature: `${proof.signature}00` }, 'with something after it');
});

test('a timestamp that is not written as a whole number from 0 to 2^53 − 1 is refused', async (t) => {
  const server = await serve(t);
  const wallet = new Wallet();
  const now = String(freshTimestamp());
  const written = (timestamp, signed = now) =>
    `{"type":"authenticate","address":"${wallet.address}","timestamp":${timestamp},"signature":"${wallet.sign(signed)}"}`;
  const spellings = {
    'a string of digits': written(`"${now}"`),
    'any text at all': written('"hello"', 'hello'),
    'a fraction of nothing': written(`${now}.0`),
    'an exponent': written(`${now.slice(0, -3)}.${now.slice(-3)}e3`),
    'an exponent of nothing': written(`${now}e0`),
    'an array': written(`[${now}]`),
    'null': written('null', 'null'),
    'true': written('true', 'true'),
    'a negative number': written(`-${now}`, `-${now}`),
    'beyond 2^53': written('9007199254740993', '9007199254740992'),
    'beyond everything': written('1e400', 'Infinity'),
    'written twice': `{"type":"authenticate","address":"${wallet.address}","timestamp":1,"timestamp":${now},"signature":"${wallet.sign(now)}"}`,
  };
  for (const [name, frame] of Object.entries(spellings)) await isNotLetIn(t, server, frame, name);
  assert.deepEqual(server.events.all('authenticated'), []);
});

test('a signature in high-S, cut short, with something after it or of no hex is refused', async (t) => {
  const server = await serve(t);
  const wallet = new Wallet();
  const good = () => authenticate(wallet, freshTimestamp());
  const spellings = {
    'high-S': (s) => highS(s),
    'without its recovery id': (s) => s.slice(0, 128),
    'one digit short': (s) => s.slice(0, 129),
    'with something after it': (s) => `${s}00`,
    'empty': () => '',
    'no hex': () => 'z'.repeat(130),
    'beyond ASCII': () => 'é'.repeat(65),
    'r of 0': (s) => '0'.repeat(64) + s.slice(64),
    's of 0': (s) => s.slice(0, 64) + '0'.repeat(64) + s.slice(128),
    'r of all ones': (s) => 'f'.repeat(64) + s.slice(64),
    'recovery id 4': (s) => `${s.slice(0, 128)}04`,
    'recovery id ff': (s) => `${s.slice(0, 128)}ff`,
    'null': () => null,
    'a number': () => 1,
    'missing': () => undefined,
  };
  for (const [name, spell] of Object.entries(spellings)) {
    const proof = good();
    await isNotLetIn(t, server, { ...proof, signature: spell(proof.signature) }, name);
  }
  assert.deepEqual(server.events.all('authenticated'), []);
});

test('an address that is not in its own checksummed form is refused', async (t) => {
  const server = await serve(t);
  const wallet = new Wallet();
  for (const address of [wallet.address.toLowerCase(), `xe_${wallet.address.slice(3).toUpperCase()}`, `XE_${wallet.address.slice(3)}`, ` ${wallet.address}`, '', null, undefined]) {
    await isNotLetIn(t, server, { ...authenticate(wallet, freshTimestamp()), address }, `for ${JSON.stringify(address)}`);
  }
  assert.deepEqual(server.events.all('authenticated'), []);
});
