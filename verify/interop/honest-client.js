// An honest JavaScript client of `edge-link serve`, to see that what others do there does not concern it.

import assert from 'node:assert/strict';
import { authenticatedClient } from './by-hand.js';

/** Asks and is answered all the while; `undisturbed()` asserts that nothing ever came between. */
export async function honestClient(t, server) {
  const client = await authenticatedClient(t, server.url, { maxReconnectAttempts: 0 });
  let asked = 0;
  const ask = () => client.send({ type: 'question', n: (asked += 1) });
  client.on('message', () => setTimeout(() => client.isAuthenticated && ask(), 5));
  ask();
  return {
    async undisturbed() {
      const [before, beats] = [asked, client.seen.all('heartbeat').length];
      await client.seen.several(before + 20, 'message');
      await client.seen.several(beats + 2, 'heartbeat');
      assert.deepEqual(client.seen.all('disconnected'), []);
      const answers = client.seen.all('message').map(({ values: [{ n }] }) => n);
      assert.deepEqual(answers, answers.map((_, i) => i + 1), 'each question was answered once and in order');
      await authenticatedClient(t, server.url); // and others still find the door open
    },
  };
}
