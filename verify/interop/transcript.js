// What was seen of a peer, in order, and waiting for more of it.

import { AssertionError } from 'node:assert';

const DEADLINE = 20_000;

export class Transcript {
  #title;
  #waiting = new Set();
  #ending = null;
  entries = [];

  constructor(title) {
    this.#title = title;
  }

  /** Of an emitter: each of its events becomes `{ event, values }`. */
  static of(emitter, title, events) {
    const transcript = new Transcript(title);
    for (const event of events) emitter.on(event, (...values) => transcript.add({ event, values }));
    return transcript;
  }

  add(entry) {
    this.entries.push(entry);
    for (const look of [...this.#waiting]) look();
  }

  /** Nothing more will come; whoever waits is told `ending` now rather than at the deadline. */
  end(ending) {
    this.#ending = ending;
    for (const look of [...this.#waiting]) look();
  }

  /** What `look` makes of all entries, as soon as that is neither undefined nor false. */
  until(look, sentence) {
    return new Promise((resolve, reject) => {
      const fail = (why) => reject(new AssertionError({ message: `${this.#title}: ${why} ${sentence}; seen:${this.#told()}` }));
      const settle = (conclude) => {
        this.#waiting.delete(attempt);
        clearTimeout(deadline);
        conclude();
      };
      const attempt = () => {
        const found = look(this.entries);
        if (found !== undefined && found !== false) settle(() => resolve(found));
        else if (this.#ending !== null) settle(() => fail(`${this.#ending} before`));
      };
      const deadline = setTimeout(() => settle(() => fail(`${DEADLINE / 1000} s went by without`)), DEADLINE);
      this.#waiting.add(attempt);
      attempt();
    });
  }

  /** The first entry that has `event` for its name and fits. */
  first(event, fits = () => true) {
    return this.until((entries) => entries.find((e) => e.event === event && fits(e)), `“${event}”${described(fits)}`);
  }

  /** The first `count` entries that have `event` for their name and fit. */
  several(count, event, fits = () => true) {
    return this.until((entries) => {
      const found = entries.filter((e) => e.event === event && fits(e));
      return found.length >= count && found.slice(0, count);
    }, `${count} × “${event}”${described(fits)}`);
  }

  all(event) {
    return this.entries.filter((e) => e.event === event);
  }

  #told() {
    if (this.entries.length === 0) return ' nothing';
    return this.entries.slice(-30).map((entry) => '\n    ' + clipped(JSON.stringify(entry))).join('');
  }
}

function described(fits) {
  const source = String(fits).replace(/\s+/g, ' ');
  return source === '() => true' ? '' : ` with ${source}`;
}

function clipped(text) {
  return text.length > 300 ? `${text.slice(0, 300)}… (${text.length} characters)` : text;
}
