// A task is one request and what the reader sees of it: it waits, uploads, streams, is refused and tries again.
import { ApiError, request } from './api.js';

const LANES = 2; // requests of the queue at once; what the reader asks for by hand does not queue
const TRIES = 8; // after that a refusal is shown as an error
const lane = { running: 0, waiting: [] };
let serial = 0;
let listener = () => {};
let keyWanted = () => Promise.reject(new Error('no listener'));

export const connection = { online: true };

export function onChange(changed, askKey) {
  listener = changed;
  keyWanted = askKey;
}

export const newTask = () => ({ serial: ++serial, phase: 'idle', text: '', progress: 0, stop: () => {} });

/**
 * Run `send({signal, onUpload, onEvent})` for a task until it has an answer, an error or is stopped.
 * Returns the answer, or null.
 */
export async function run(task, send, { queue = false } = {}) {
  const control = new AbortController();
  const set = (change) => { Object.assign(task, change); listener(); };
  let wake = () => {};
  task.stop = () => { control.abort(); wake(); };
  task.now = () => wake();
  // Waits; gives true where the reader did not want to wait.
  const pause = (ms) => new Promise((resolve) => {
    const timer = setTimeout(resolve, ms, false);
    wake = () => { clearTimeout(timer); resolve(true); };
  });
  if (queue) await place(task, set, control.signal);
  for (let tries = 1; ; tries++) {
    try {
      if (control.signal.aborted) throw new ApiError('Stopped.');
      set({ phase: 'uploading', progress: 0, text: '' });
      const result = await send({
        signal: control.signal,
        onUpload: (share) => set(share < 1 ? { phase: 'uploading', progress: share } : { phase: 'working' }),
        onEvent: ({ delta }) => typeof delta === 'string' && set({ phase: 'streaming', text: task.text + delta }),
      });
      if (queue) leave();
      set({ phase: 'done', result });
      return result;
    } catch (error) {
      const again = !control.signal.aborted && tries < TRIES && await another(error, set, pause, control.signal);
      if (again) continue;
      if (queue) leave();
      set(control.signal.aborted ? { phase: 'stopped' } : { phase: 'error', error });
      return null;
    }
  }
}

/** Whether to try again, after the wait that this error needs. */
async function another(error, set, pause, signal) {
  if (error.status === 401) {
    set({ phase: 'locked' });
    await Promise.race([keyWanted(error.message), pause(1e9)]);
    return !signal.aborted;
  }
  if (error.retryAfter) {
    const until = Date.now() + 1000 * error.retryAfter;
    for (let woken = false; !woken && Date.now() < until && !signal.aborted;) {
      set({ phase: 'busy', seconds: Math.ceil((until - Date.now()) / 1000) });
      woken = await pause(Math.min(1000, until - Date.now()));
    }
    return !signal.aborted;
  }
  if (error.code === 'no_connection') {
    if (await healthy()) return false; // it is there, so it was this request that it cut off
    set({ phase: 'offline' });
    await Promise.race([watch(), pause(1e9)]);
    return !signal.aborted;
  }
  return false;
}

let watching = null;

/** Ends when the server answers again. */
export function watch() {
  watching ||= (async () => {
    while (!(connection.online = await healthy())) {
      listener();
      await new Promise((resolve) => { setTimeout(resolve, 2000); });
    }
    watching = null;
    listener();
  })();
  return watching;
}

async function healthy() {
  try {
    await request('health');
    return true;
  } catch (error) {
    return error.status > 0;
  }
}

async function place(task, set, signal) {
  if (lane.running < LANES) { lane.running++; return; }
  await new Promise((resolve) => {
    const entry = { resolve, moved: () => set({ phase: 'queued', position: lane.waiting.indexOf(entry) }) };
    lane.waiting.push(entry);
    entry.moved();
    signal.addEventListener('abort', () => {
      const at = lane.waiting.indexOf(entry);
      if (at < 0) return;
      lane.waiting.splice(at, 1);
      lane.running++; // given back by leave(), as for any other task
      resolve();
    });
  });
}

function leave() {
  const next = lane.waiting.shift();
  if (next) next.resolve();
  else lane.running--;
  lane.waiting.forEach((entry) => entry.moved());
}
