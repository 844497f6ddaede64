// `edge-link connect` at a JavaScript server that does not want it, or that it must not trust.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, test } from 'node:test';
import { greeter, javaScriptServer, serverByHand, typesSent, visitAs } from './by-hand.js';
import { connect } from './edge-link.js';
import { scheme } from './over-tls.js';
import { Wallet } from './wallet.js';
import { CONFLICT, FORBIDDEN, REQUEST_TIMEOUT, UNAUTHORIZED, authenticate } from './wire.js';

const SOON = ['--max-reconnect-attempts', '1', '--reconnect-delay', '10ms'];
const HELLO = ['--send', '{"type":"hello"}', '--count', '1'];

const REASONS = {
  [UNAUTHORIZED]: /401|unauthori[sz]ed/i,
  [FORBIDDEN]: /403|forbidden/i,
  [REQUEST_TIMEOUT]: /408|time|idle/i,
  [CONFLICT]: /409|conflict|replace|already/i,
};

describe('refused by a JavaScript server', { concurrency: true }, () => {
  test('401 because the clocks differ: exit code 1', async (t) => {
    const server = await javaScriptServer(t, { now: () => Date.now() + 60_000 });
    const client = connect(t, server.url, HELLO);
    await client.givesUp(REASONS[UNAUTHORIZED]);
    assert.equal(server.seen.entries.find(({ event }) => event === 'refused').values[0], UNAUTHORIZED);
    assert.equal(server.seen.all('refused').length, 1, 'a refusal is not retried');
  });

  test('403 because it is not on the whitelist: exit code 1', async (t) => {
    const server = await javaScriptServer(t, { whitelist: [new Wallet().address] });
    await connect(t, server.url, HELLO).givesUp(REASONS[FORBIDDEN]);
    assert.equal(server.seen.all('refused').length, 1, 'a refusal is not retried');
  });

  test('403 because the custom check said no: exit code 1', async (t) => {
    const server = await javaScriptServer(t, { onAuthenticate: async () => false });
    await connect(t, server.url, HELLO).givesUp(REASONS[FORBIDDEN]);
  });

  test('409 because its address is connected already: exit code 1, and the other is undisturbed', async (t) => {
    const server = await javaScriptServer(t, { replaceExisting: false, echo: true });
    const wallet = new Wallet();
    const other = await visitAs(t, server.url, wallet);
    await connect(t, server.url, HELLO, { wallet }).givesUp(REASONS[CONFLICT]);
    other.say({ type: 'still here' });
    await other.message('still here');
    assert.equal(server.seen.all('refused').length, 1, 'a refusal is not retried');
  });

  test('being replaced: exit code 1, and it does not come back to replace its successor', async (t) => {
    const server = await javaScriptServer(t);
    const wallet = new Wallet();
    const client = connect(t, server.url, [], { wallet });
    await client.events.first('authenticated');
    const successor = await visitAs(t, server.url, wallet);
    await client.givesUp(REASONS[CONFLICT]);
    assert.ok((await client.events.first('disconnected')).reason, 'a reason is given');
    assert.deepEqual(successor.seen.all('closed'), []);
    assert.equal(server.seen.all('authenticated').length, 2);
  });
});

describe('told by a server moved by hand', { concurrency: true }, () => {
  for (const [text, reason] of Object.entries(REASONS)) {
    const status = text.slice(9, 12);

    test(`the raw ${status} before the answer is understood: exit code 1`, async (t) => {
      const server = await serverByHand(t, async (peer) => {
        await peer.message('authenticate');
        peer.say(text).webSocket.close();
      });
      const client = connect(t, server.url, [...HELLO, ...SOON]);
      await client.givesUp(reason);
      assert.deepEqual(client.events.all('message'), [], 'a refusal is no message');
      assert.deepEqual(client.events.all('authenticated'), []);
    });

    test(`the quoted ${status} after the answer is understood: exit code 1`, async (t) => {
      const server = await serverByHand(t, async (peer) => {
        await peer.message('authenticate');
        peer.say(authenticate(new Wallet())).say(JSON.stringify(text)).webSocket.close();
      });
      const client = connect(t, server.url, SOON);
      await client.givesUp(reason);
      assert.deepEqual(client.events.all('message'), [], 'a refusal is no message');
      assert.ok((await client.events.first('disconnected')).reason, 'a reason is given');
    });
  }

  test('a server that closes without a word is lost: exit code 1', async (t) => {
    const server = await serverByHand(t, async (peer) => {
      await peer.message('authenticate');
      peer.webSocket.close();
    });
    await connect(t, server.url, [...HELLO, ...SOON]).givesUp(/\S/);
  });

  test('a server that is not there: exit code 1 and connection_failed', async (t) => {
    const port = await aFreePort();
    const client = connect(t, `${scheme}://127.0.0.1:${port}`, SOON);
    await client.givesUp(/\S/);
    assert.ok((await client.events.first('connection_failed')).reason, 'a reason is given');
  });

  test('a server that speaks no WebSocket: exit code 1', async (t) => {
    await connect(t, await greeter(t, 'SSH-2.0-something\r\n'), SOON).givesUp(/\S/);
  });
});

describe('a server whose answer', { concurrency: true }, () => {
  const wallet = new Wallet();
  const answers = {
    'is older than the window': () => authenticate(wallet, Date.now() - 60_000),
    'is of the future': () => authenticate(wallet, Date.now() + 60_000),
    'has the signature of another wallet': () => ({ ...authenticate(wallet), signature: authenticate(new Wallet()).signature }),
    'has the signature of another text': () => ({ ...authenticate(wallet), signature: wallet.sign('0') }),
    'has no signature': () => ({ ...authenticate(wallet), signature: undefined }),
    'has a signature of no hex': () => ({ ...authenticate(wallet), signature: 'z'.repeat(130) }),
    'has a signature cut short': () => ({ ...authenticate(wallet), signature: authenticate(wallet).signature.slice(0, 128) }),
    'has a timestamp in quotes': () => {
      const now = String(Date.now());
      return { type: 'authenticate', address: wallet.address, timestamp: now, signature: wallet.sign(now) };
    },
    'is the client’s own authenticate, reflected': (theirs) => theirs,
    'is null': () => null,
    'is an empty object of its type': () => ({ type: 'authenticate' }),
  };
  for (const [name, answer] of Object.entries(answers)) {
    test(`${name}: is refused, and gets nothing of the application`, async (t) => {
      const { client, server } = await answeredWith(t, answer);
      await client.givesUp(/\S/);
      isNotTrusted(client, server);
    });
  }

  test('is of the client’s own address, freshly signed: is refused', async (t) => {
    const own = new Wallet();
    const { client, server } = await answeredWith(t, () => authenticate(own), { wallet: own });
    await client.givesUp(/\S/);
    isNotTrusted(client, server);
  });

  test('is of an address that is not expected: is refused', async (t) => {
    const { client, server } = await answeredWith(t, () => authenticate(wallet), { options: ['--pin', new Wallet().address, '--pin', new Wallet().address] });
    await client.givesUp(/\S/);
    isNotTrusted(client, server);
  });

  async function answeredWith(t, answer, { wallet, options = [] } = {}) {
    const server = await serverByHand(t, async (peer) => {
      const theirs = await peer.message('authenticate');
      peer.say(answer(theirs)).say({ type: 'mischief' });
    });
    return { server, client: connect(t, server.url, [...options, ...HELLO, ...SOON], { wallet }) };
  }

  function isNotTrusted(client, server) {
    assert.deepEqual(client.events.all('authenticated'), []);
    assert.deepEqual(client.events.all('message'), []);
    assert.ok(server.peers.length > 0, 'the server was dialled');
    for (const peer of server.peers) assert.ok(!typesSent(peer).includes('hello'), `nothing of the application was sent: ${typesSent(peer)}`);
  }
});

async function aFreePort() {
  const server = createServer();
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}
