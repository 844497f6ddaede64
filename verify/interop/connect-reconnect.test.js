// `edge-link connect` and a JavaScript server that comes, goes and falls silent.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { javaScriptServer, serverByHand } from './by-hand.js';
import { connect } from './edge-link.js';
import { Wallet } from './wallet.js';
import { REQUEST_TIMEOUT, authenticate } from './wire.js';

const EAGER = ['--max-reconnect-attempts', '100', '--reconnect-delay', '100ms'];

describe('reconnecting', { concurrency: true }, () => {
  test('the client comes back when the server starts again on the same port, and can speak again', async (t) => {
    const wallet = new Wallet();
    const first = await javaScriptServer(t, { wallet });
    const port = first.port;
    const client = connect(t, first.url, [...EAGER, '--send', '{"type":"hello"}']);
    await first.seen.first('message');
    await first.close();
    assert.ok((await client.events.first('disconnected')).reason, 'a reason is given');
    assert.equal((await client.events.first('reconnecting')).attempt, 1);
    const second = await javaScriptServer(t, { wallet, port });
    const [once, again] = await client.events.several(2, 'authenticated');
    assert.equal(once.server, again.server);
    second.broadcast({ type: 'welcome back' });
    await client.events.first('message', ({ message }) => message.type === 'welcome back');
    assert.deepEqual(second.seen.all('authenticated')[0].values, first.seen.all('authenticated')[0].values, 'the same address');
  });

  test('the client counts its attempts and gives up after as many as it was told', async (t) => {
    const server = await javaScriptServer(t);
    const client = connect(t, server.url, ['--max-reconnect-attempts', '3', '--reconnect-delay', '10ms']);
    await client.events.first('authenticated');
    await server.close();
    await client.givesUp(/\S/);
    assert.deepEqual(client.events.all('reconnecting').map(({ attempt }) => attempt), [1, 2, 3]);
    assert.ok(client.events.all('connection_failed').length > 0, 'and says that it has');
  });

  test('the client waits for a server that is not there yet', async (t) => {
    const placeholder = await javaScriptServer(t);
    const { port, url } = placeholder;
    await placeholder.close();
    const client = connect(t, url, EAGER);
    await client.events.first('reconnecting');
    const server = await javaScriptServer(t, { port });
    assert.equal((await client.events.first('authenticated')).server, server.address);
  });

  test('a session that did not last does not reset the count', async (t) => {
    const server = await serverByHand(t, async (peer) => {
      await peer.message('authenticate');
      peer.say(authenticate(new Wallet())).webSocket.close();
    });
    const client = connect(t, server.url, ['--max-reconnect-attempts', '3', '--reconnect-delay', '10ms']);
    await client.givesUp(/\S/);
    assert.equal(server.peers.length, 4, 'the first dial and three more');
  });

  test('a client dropped as idle comes back', async (t) => {
    const server = await serverByHand(t, async (peer, number) => {
      await peer.message('authenticate');
      peer.say(authenticate(new Wallet()));
      if (number === 1) peer.say(JSON.stringify(REQUEST_TIMEOUT)).webSocket.close();
    });
    const client = connect(t, server.url, EAGER);
    await client.events.several(2, 'authenticated');
    assert.match(JSON.stringify((await client.events.first('disconnected')).reason), /408|idle|time/i);
  });

  test('a server that answers nothing to the authenticate is left', async (t) => {
    const server = await serverByHand(t, () => {}, { autoPong: false });
    const client = connect(t, server.url, EAGER);
    await client.events.first('reconnecting');
    await server.seen.several(2, 'connected');
    assert.deepEqual(client.events.all('authenticated'), []);
  });

  test('a server that falls silent is noticed, and dialled again', async (t) => {
    const server = await javaScriptServer(t, { heartbeatInterval: 0, clientTimeout: 0, autoPong: false });
    const client = connect(t, server.url, EAGER);
    await client.events.first('authenticated');
    assert.ok((await client.events.first('disconnected')).reason, 'a reason is given');
    await client.events.several(2, 'authenticated');
  });

  test('a server that beats each second is not taken for silent', async (t) => {
    const server = await javaScriptServer(t);
    const client = connect(t, server.url, EAGER);
    await server.seen.several(7, 'heartbeat'); // longer than its patience of 5 s
    assert.deepEqual(client.events.all('disconnected'), []);
  });

  test('an interrupted client leaves for good', async (t) => {
    const server = await javaScriptServer(t);
    const client = connect(t, server.url, EAGER);
    await client.events.first('authenticated');
    client.interrupt();
    await server.seen.first('disconnected');
    await client.exited();
    assert.equal(server.seen.all('connected').length, 1);
  });
});
