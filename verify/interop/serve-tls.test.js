// JavaScript clients of `edge-link serve` over TLS: its certificate, and those who do not trust it or do not speak TLS.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { authenticatedClient, dial, heardByDialling, hungUp, javaScriptClient } from './by-hand.js';
import { Authority } from './certificates.js';
import { serve, servePlainly, serveWith } from './edge-link.js';
import { honestClient } from './honest-client.js';
import { ONLY_OVER_TLS, authority, certified, misread } from './over-tls.js';

const ATTENTIVE = ['--echo', '--heartbeat-interval', '100ms', '--auth-timeout', '1s'];

/** Dials once, without ever getting as far as a WebSocket; gives what it was told instead. */
async function isNotConnected(t, url, socketOptions) {
  const client = javaScriptClient(t, url, { maxReconnectAttempts: 0, socketOptions });
  await client.seen.first('connection_failed');
  assert.deepEqual(client.seen.all('connected'), []);
  const { values: [error] } = await client.seen.first('error');
  return error;
}

describe('a server over TLS', ONLY_OVER_TLS, () => {
  test('it shows the certificate it was given, and speaks TLS 1.3', async (t) => {
    const server = await serve(t);
    const socket = dial(t, server.url);
    await once(socket, 'secureConnect');
    assert.equal(socket.getProtocol(), 'TLSv1.3');
    assert.equal(socket.getPeerX509Certificate().toString(), certified().cert.replaceAll('\r', ''));
  });

  test('it speaks TLS 1.2 to a JavaScript client that knows no later one', async (t) => {
    const server = await serve(t, '--echo');
    const client = await authenticatedClient(t, server.url, { socketOptions: { maxVersion: 'TLSv1.2' } });
    client.send({ type: 'hello' });
    await client.seen.first('message');
  });

  test('it sends along what leads from its certificate to the root', async (t) => {
    const server = await serveWith(t, new Authority('An authority below', authority()).issue());
    await authenticatedClient(t, server.url);
  });

  const distrustful = {
    'trusts only another authority': [() => ({ ca: new Authority('Another').pem }), 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'],
    'trusts only whom browsers trust': [() => ({ ca: undefined }), 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'],
    'knows the server by a name that is not in the certificate': [() => ({ servername: 'elsewhere.example' }), 'ERR_TLS_CERT_ALTNAME_INVALID'],
  };
  for (const [name, [options, code]] of Object.entries(distrustful)) {
    test(`a JavaScript client that ${name} leaves, and the server goes on`, async (t) => {
      const server = await serve(t, ...ATTENTIVE);
      const honest = await honestClient(t, server);
      assert.equal((await isNotConnected(t, server.url, options())).code, code);
      await server.events.first('rejected', ({ reason }) => /TLS/.test(reason));
      await honest.undisturbed();
    });
  }

  test('a JavaScript client that does not speak TLS fails at once, and the server goes on', async (t) => {
    const server = await serve(t, ...ATTENTIVE);
    const honest = await honestClient(t, server);
    assert.match((await isNotConnected(t, misread(server.url))).message, /^Parse Error: Expected HTTP/);
    await server.events.first('rejected', ({ reason }) => /TLS/.test(reason));
    await honest.undisturbed();
  });

  test('nothing said instead of a TLS handshake stops the server for others', async (t) => {
    const server = await serve(t, ...ATTENTIVE);
    const honest = await honestClient(t, server);
    const greetings = {
      'nonsense': Buffer.from('nonsense\r\n\r\n'),
      'HTTP': Buffer.from('GET / HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n'),
      'zeros': Buffer.alloc(100_000),
      'one byte of a record': Buffer.from([0x16]),
      'a record begun and never ended': Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]),
      'a record of no length': Buffer.from([0x16, 0x03, 0x01, 0x00, 0x00]),
      'a record that is too long': Buffer.from([0x16, 0x03, 0x01, 0xff, 0xff, ...Array(1000).fill(1)]),
      'a ClientHello that holds nothing': Buffer.from([0x16, 0x03, 0x01, 0x00, 0x04, 0x01, 0x00, 0x00, 0x00]),
      'a ClientHello of 16 MiB, begun': Buffer.from([0x16, 0x03, 0x01, 0x40, 0x00, 0x01, 0xff, 0xff, 0xff, ...Array(0x3ffc).fill(0)]),
      'a fatal alert': Buffer.from([0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28]),
      'data that nobody agreed to encrypt': Buffer.from([0x17, 0x03, 0x03, 0x00, 0x02, 0x7b, 0x7d]),
    };
    await Promise.all(
      Object.entries(greetings).map(([name, greeting]) => {
        const socket = dial(t, misread(server.url));
        const closed = hungUp(socket, name);
        socket.write(greeting);
        return closed;
      }),
    );
    await server.events.several(Object.keys(greetings).length, 'rejected');
    await honest.undisturbed();
  });

  test('who never begins a TLS handshake is hung up on at the auth timeout, without a text', async (t) => {
    const server = await serve(t, ...ATTENTIVE);
    assert.equal(await heardByDialling(t, misread(server.url)), '');
    await server.events.first('rejected', ({ reason }) => /not authenticated within 1s/.test(reason));
  });
});

test('a JavaScript client that speaks TLS to a server without it fails at once, and the server goes on', ONLY_OVER_TLS, async (t) => {
  const server = await servePlainly(t, ...ATTENTIVE);
  const honest = await honestClient(t, server);
  assert.equal((await isNotConnected(t, misread(server.url))).code, 'EPROTO');
  await server.events.first('rejected');
  await honest.undisturbed();
});
