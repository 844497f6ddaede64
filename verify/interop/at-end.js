// What a test started is ended with it, the latest first, each even if another's end fails.

const steps = new WeakMap();

export function atEnd(t, step) {
  if (!steps.has(t)) {
    steps.set(t, []);
    t.after(() => endAll(steps.get(t)));
  }
  steps.get(t).push(step);
}

async function endAll(remaining) {
  const failures = [];
  while (remaining.length > 0) {
    try {
      await remaining.pop()();
    } catch (failure) {
      failures.push(failure);
    }
  }
  if (failures.length > 0) throw failures[0];
}
