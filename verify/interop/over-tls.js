// The switch: with EDGE_LINK_TLS=1, every story that does not ask for something else is told over TLS.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Authority } from './certificates.js';

export const overTls = !['', '0'].includes(process.env.EDGE_LINK_TLS ?? '');
export const scheme = overTls ? 'wss' : 'ws';

/** The one authority that clients of these stories trust, and a certificate of its own for the servers. */
export const authority = once(() => new Authority('The authority of these stories'));
export const certified = once(() => authority().issue());

/** What a JavaScript server is to listen with. */
export const tlsOfTheRun = () => (overTls ? certified() : null);

/** What a JavaScript socket to that URL is to be opened with. */
export const trust = (url) => (isSecure(url) ? { ca: authority().pem } : {});

export const isSecure = (url) => new URL(url).protocol === 'wss:';

/** The URL of the same server, for who believes that it speaks TLS when it does not, or the other way round. */
export const misread = (url) => (isSecure(url) ? url.replace(/^wss/, 'ws') : url.replace(/^ws/, 'wss'));

/** For stories that are only told in a run over TLS. */
export const ONLY_OVER_TLS = { skip: overTls ? false : 'told when EDGE_LINK_TLS=1' };

/** The path of a file that holds this text, for as long as this process lives, readable by nobody else. */
export function file(text) {
  const path = join(folder(), String((files += 1)));
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}

let files = 0;
const folder = once(() => {
  const path = mkdtempSync(join(tmpdir(), 'link-interop-'));
  process.once('exit', () => rmSync(path, { recursive: true, force: true }));
  return path;
});

/** Made when it is first asked for: a plain run needs none of it. */
function once(make) {
  let made;
  return () => (made ??= make());
}
