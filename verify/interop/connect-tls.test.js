// `edge-link connect` at a JavaScript server over TLS: whom it trusts, and what it says of the others.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { greeter, javaScriptServer } from './by-hand.js';
import { Authority } from './certificates.js';
import { connect } from './edge-link.js';
import { ONLY_OVER_TLS, authority, certified, misread } from './over-tls.js';

const HELLO = ['--send', '{"type":"hello"}', '--count', '1'];
const SOON = ['--max-reconnect-attempts', '1', '--reconnect-delay', '10ms'];
const NOBODY = /certificate issued by an untrusted CA/;

/** It leaves with 1 and that reason, told as an event too, and has opened no WebSocket. */
async function trustsNot(server, client, reason) {
  await client.givesUp(reason);
  assert.match((await client.events.first('connection_failed')).reason, reason);
  assert.deepEqual(client.events.all('connected'), []);
  await server.seen.first('error'); // so it was dialled
  assert.deepEqual(server.seen.all('connected'), []);
}

describe('a client over TLS', { ...ONLY_OVER_TLS, concurrency: true }, () => {
  const minute = 60_000;
  const dubious = {
    'was issued by another authority': [() => new Authority('Another').issue(), NOBODY],
    'was issued by another authority of the same name': [() => new Authority(authority().name).issue(), /signature .*; if its issuer was made anew, give the new one/],
    'is for other names': [() => authority().issue({ names: ['elsewhere.example', '127.0.0.2'] }), /for another name: .*127\.0\.0\.1.*elsewhere\.example/],
    'has expired': [() => authority().issue({ until: Date.now() - minute }), /certificate has expired/],
    'is not valid yet': [() => authority().issue({ from: Date.now() + minute }), /not valid yet; is this machine's clock right\?/],
  };
  for (const [name, [certificate, reason]] of Object.entries(dubious)) {
    test(`a server whose certificate ${name} is not trusted: exit code 1, and it says so`, async (t) => {
      const server = await javaScriptServer(t, { tls: certificate() });
      await trustsNot(server, connect(t, server.url, [...HELLO, ...SOON]), reason);
    });
  }

  test('without a CA file it trusts whom browsers trust, and so none of ours: exit code 1, and it says what to give', async (t) => {
    const server = await javaScriptServer(t);
    await trustsNot(server, connect(t, server.url, [...HELLO, ...SOON], { trusted: null }), /certificate issued by an untrusted CA/);
  });

  test('a server whose certificate an authority below the trusted one has issued is trusted', async (t) => {
    const server = await javaScriptServer(t, { tls: new Authority('An authority below', authority()).issue(), echo: true });
    const client = connect(t, server.url, HELLO);
    assert.equal((await client.exited()).code, 0, client.told());
  });

  test('a server is also known by its host name', async (t) => {
    const server = await javaScriptServer(t, { host: 'localhost', tls: authority().issue({ names: ['localhost'] }), echo: true });
    const client = connect(t, server.url, HELLO);
    assert.equal((await client.exited()).code, 0, client.told());
  });

  test('a server that knows no later TLS than 1.2 is spoken to', async (t) => {
    const server = await javaScriptServer(t, { tls: { ...certified(), maxVersion: 'TLSv1.2' }, echo: true });
    const client = connect(t, server.url, HELLO);
    assert.equal((await client.exited()).code, 0, client.told());
  });

  test('a server that starts again with a certificate that has not expired is come back to', async (t) => {
    const expired = await javaScriptServer(t, { tls: authority().issue({ until: Date.now() - minute }) });
    const client = connect(t, expired.url, ['--max-reconnect-attempts', '100', '--reconnect-delay', '100ms']);
    await client.events.first('error', ({ reason }) => /expired/.test(reason));
    const { port } = expired;
    await expired.close();
    const renewed = await javaScriptServer(t, { port });
    assert.equal((await client.events.first('authenticated')).server, renewed.address);
  });

  test('wss:// to a server without TLS: exit code 1, and it says to use ws://', async (t) => {
    const server = await javaScriptServer(t, { tls: null });
    await connect(t, misread(server.url), [...HELLO, ...SOON]).givesUp(/does not speak TLS; use `ws:\/\/`/);
    assert.deepEqual(server.seen.all('connected'), []);
  });

  test('wss:// to something that speaks neither: exit code 1, and it says that this is no TLS', async (t) => {
    const url = await greeter(t, 'SSH-2.0-something\r\n', { tls: null });
    await connect(t, misread(url), [...HELLO, ...SOON]).givesUp(/does not speak TLS/);
  });

  test('ws:// to a server with TLS: exit code 1, and it says that wss:// may be meant', async (t) => {
    const server = await javaScriptServer(t);
    await connect(t, misread(server.url), [...HELLO, ...SOON]).givesUp(/wss:\/\//);
    assert.deepEqual(server.seen.all('connected'), []);
  });
});
