// What kills or slows a JavaScript server, said to `edge-link serve` while an honest JavaScript client is connected.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dial, freshTimestamp, hungUp, upgradeByHand, visit, visitAs } from './by-hand.js';
import { serve } from './edge-link.js';
import { honestClient } from './honest-client.js';
import { Wallet } from './wallet.js';
import { authenticate } from './wire.js';

const proof = (changes) => JSON.stringify({ ...authenticate(new Wallet(), freshTimestamp()), ...changes });

test('no first frame stops the server for others', async (t) => {
  const server = await serve(t, '--echo', '--heartbeat-interval', '100ms');
  const honest = await honestClient(t, server);
  const frames = [
    'null', 'true', '1', '[]', '[null]', '""', '{', '\u0000', '{"type":null}', '{"type":["authenticate"]}', '{"type":"authenticate"}',
    proof({ signature: undefined }), proof({ signature: null }), proof({ signature: '' }), proof({ signature: 'ab' }), proof({ signature: {} }),
    proof({ signature: 'zz'.repeat(65) }), proof({ signature: '0'.repeat(130) }), proof({ signature: 'f'.repeat(130) }), proof({ signature: '\u{1F517}'.repeat(65) }),
    proof({ address: undefined }), proof({ address: null }), proof({ address: 7 }), proof({ address: '' }), proof({ address: '\u{1F517}' }), proof({ address: 'xe_' }),
    proof({ timestamp: undefined }), proof({ timestamp: null }), proof({ timestamp: {} }), proof({ timestamp: -1 }), proof({ timestamp: 1e300 }), proof({ timestamp: 0 }),
    '['.repeat(4000), '{"a":'.repeat(600), `{"type":"authenticate","address":"${'a'.repeat(3000)}"}`, Buffer.alloc(64, 0xff),
  ];
  for (const frame of frames) {
    const visitor = await visit(t, server.url);
    visitor.say(frame);
    await visitor.seen.first('closed');
  }
  await honest.undisturbed();
});

test('a first frame of more than 4 KiB is not waited for to its end', async (t) => {
  const server = await serve(t, '--echo', '--heartbeat-interval', '100ms');
  const honest = await honestClient(t, server);
  for (const size of [8 * 1024, 1024 * 1024]) {
    const visitor = await visit(t, server.url);
    visitor.say(proof({ padding: 'x'.repeat(size) }));
    await visitor.seen.first('closed');
    assert.deepEqual(visitor.seen.all('frame').filter(({ text }) => text.startsWith('{')), [], 'and nobody is let in by it');
  }
  await honest.undisturbed();
});

test('no frame of an authenticated client stops the server for others', async (t) => {
  const server = await serve(t, '--echo', '--heartbeat-interval', '100ms');
  const honest = await honestClient(t, server);
  const frames = [
    'null', 'true', '', '{', 'not JSON', '"HTTP/1.1 409 Conflict\\r\\n\\r\\n"', 'HTTP/1.1 409 Conflict\r\n\r\n',
    '{"type":"heartbeat"}', '{"type":"heartbeat","ts":null}', '{"type":"heartbeat","ts":"never"}', '{"type":"heartbeat","ts":-1e308}', '{"type":"heartbeat","ts":1e999}',
    '{"type":"authenticate"}', proof({}), '{"type":"disconnect"}', '{"type":"error"}', '{"type":{}}', '{"":""}', '{"type":"a","type":"b"}',
    '['.repeat(100_000), '{"a":'.repeat(100_000), '[]'.repeat(1000), '1'.repeat(100_000), '"\\ud800"', Buffer.alloc(1000, 0xff), Buffer.alloc(0),
  ];
  for (const frame of frames) {
    const visitor = await visitAs(t, server.url, new Wallet());
    visitor.say(frame);
    visitor.webSocket.ping('read that?');
    await visitor.seen.until((all) => all.some(({ event, payload }) => event === 'closed' || payload === 'read that?'), 'a pong or the end');
    visitor.webSocket.terminate();
  }
  await honest.undisturbed();
});

test('a message of more than 1 MiB ends its own connection only', async (t) => {
  const server = await serve(t, '--echo', '--heartbeat-interval', '100ms');
  const honest = await honestClient(t, server);
  const visitor = await visitAs(t, server.url, new Wallet());
  visitor.say({ type: 'too large', text: 'x'.repeat(2 * 1024 * 1024) });
  await visitor.seen.first('closed');
  await honest.undisturbed();
});

test('no bytes that break WebSocket stop the server for others', async (t) => {
  const server = await serve(t, '--echo', '--heartbeat-interval', '100ms', '--auth-timeout', '1s');
  const honest = await honestClient(t, server);
  const broken = {
    'reserved bits': [0xf1, 0x80, 0, 0, 0, 0],
    'compressed, though none was agreed': [0xc1, 0x82, 0, 0, 0, 0, 0x7b, 0x7d],
    'a reserved opcode': [0x83, 0x80, 0, 0, 0, 0],
    'a frame that is not masked': [0x81, 0x02, 0x7b, 0x7d],
    'a continuation of nothing': [0x80, 0x80, 0, 0, 0, 0],
    'a control frame in fragments': [0x09, 0x80, 0, 0, 0, 0],
    'a ping that is too long': [0x89, 0xfe, 0, 126, 0, 0, 0, 0, ...Array(126).fill(0)],
    'a length of 2^63': [0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    'a close with half a code': [0x88, 0x81, 0, 0, 0, 0, 3],
    'a close with a code that must not be sent': [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xed],
    'a text that is not UTF-8': [0x81, 0x81, 0, 0, 0, 0, 0xff],
    'HTTP once more': [...Buffer.from('GET / HTTP/1.1\r\n\r\n')],
  };
  await Promise.all(
    Object.entries(broken).map(async ([name, bytes]) => {
      const socket = await upgradeByHand(t, server.url);
      const closed = hungUp(socket, name);
      socket.write(Buffer.from(bytes));
      await closed;
    }),
  );
  await honest.undisturbed();
});

test('a frame begun and never ended is not waited for longer than the auth timeout', async (t) => {
  const server = await serve(t, '--echo', '--heartbeat-interval', '100ms', '--auth-timeout', '1s');
  const honest = await honestClient(t, server);
  const socket = await upgradeByHand(t, server.url);
  const closed = hungUp(socket, 'a frame begun');
  socket.write(Buffer.from([0x81, 0xfe, 0x01, 0x00, 0, 0, 0, 0, 0x7b]));
  await closed;
  await honest.undisturbed();
});

test('nothing said before the upgrade stops the server for others', async (t) => {
  const server = await serve(t, '--echo', '--heartbeat-interval', '100ms', '--auth-timeout', '1s');
  const honest = await honestClient(t, server);
  const greetings = [
    'nonsense\r\n\r\n', 'GET / HTTP/1.1\r\n\r\n', 'POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc', 'GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n',
    `GET /${'x'.repeat(100_000)} HTTP/1.1\r\n\r\n`, `GET / HTTP/1.1\r\n${'A: b\r\n'.repeat(1000)}\r\n`, Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]), Buffer.alloc(1000),
  ];
  await Promise.all(
    greetings.map((greeting) => {
      const socket = dial(t, server.url);
      const closed = hungUp(socket, JSON.stringify(greeting.toString('latin1').slice(0, 40)));
      socket.write(greeting);
      return closed;
    }),
  );
  await honest.undisturbed();
});

test('connections that come and go at once stop nobody', async (t) => {
  const server = await serve(t, '--echo', '--heartbeat-interval', '100ms');
  const honest = await honestClient(t, server);
  for (let n = 0; n < 40; n += 1) {
    const visitor = await visit(t, server.url);
    if (n % 2) visitor.say(authenticate(new Wallet()));
    if (n % 4 < 2) visitor.webSocket.terminate();
    else visitor.webSocket.close();
    await visitor.seen.first('closed');
  }
  await honest.undisturbed();
});
