// What the reader sees of a task in each of its phases, and of its answer.
import { $, announce, download, el, percent, receiptOf, receiptWords, seconds, segments, span, subtitles } from './words.js';

/**
 * Show a task in a box. The box is built anew only when the phase changes, so that a button keeps its focus and a press
 * is not lost while an answer grows; pieces marked `data-live` follow the task.
 */
export function paint(box, task, build, key = '') {
  const now = `${task?.serial}:${task?.phase}:${key}`;
  if (box.dataset.now !== now) {
    const focused = box.contains(document.activeElement) && document.activeElement !== box;
    box.dataset.now = now;
    box.replaceChildren(...build().filter(Boolean));
    box.setAttribute('aria-busy', String(Boolean(task) && !['idle', 'done', 'error', 'stopped'].includes(task.phase)));
    if (focused) { box.tabIndex = -1; box.focus({ preventScroll: true }); }
  }
  for (const node of box.querySelectorAll('[data-live]')) LIVE[node.dataset.live](node, task);
}

const LIVE = {
  text: (node, task) => { node.textContent = task.text; },
  bar: (node, task) => { node.value = task.progress; },
  note: (node, task) => { node.textContent = task.note || ''; },
  percent: (node, task) => { node.textContent = `Uploading, ${Math.floor(100 * task.progress)} %`; },
  countdown: (node, task) => { node.textContent = `The server has too much to do. Next try in ${task.seconds} s.`; },
  place: (node, task) => { node.textContent = task.position ? `Queued; ${task.position} before it.` : 'Queued; next.'; },
};
const live = (name, tag = 'span', props = {}) => el(tag, { ...props, 'data-live': name });
const press = (text, act, props = {}) => el('button', { type: 'button', onclick: act, ...props }, text);
const stopping = (task) => press('Stop', () => task.stop(), { className: 'quiet' });

/** A line about a task that has no answer yet, or none. */
export function status(task, again) {
  const line = (kind, ...children) => el('p', { className: `status ${kind}` }, ...children);
  switch (task?.phase) {
    case 'queued': return line('wait', live('place'), stopping(task));
    case 'uploading': return line('wait', live('bar', 'progress', { max: 1, 'aria-label': 'Upload' }), live('percent'), stopping(task));
    case 'working': return line('wait', el('span', { className: 'spin' }), 'Processing…', stopping(task));
    case 'streaming': return line('wait', el('span', { className: 'spin' }), 'Writing…', stopping(task));
    case 'busy': return line('busy', el('b', {}, 'Busy.'), live('countdown'), press('Try now', () => task.now()), stopping(task));
    case 'offline': return line('busy', el('b', {}, 'Offline.'), 'This goes on when the server is back.', stopping(task));
    case 'locked': return line('busy', el('b', {}, 'Locked.'), 'Waits for the API key.', stopping(task));
    case 'stopped': return line('', 'Stopped.', press('Start again', again));
    case 'error': return fault(task.error, again);
    default: return null;
  }
}

const fault = (error, again) => el('div', { className: 'fault', role: 'group', 'aria-label': 'Error' },
  el('p', {}, el('b', {}, '⚠ Error. '), error.message),
  el('p', { className: 'row' }, error.code && el('code', {}, error.code), again && press('Try again', again)));

export function receipt(result) {
  const found = receiptOf(result);
  if (!found) return null;
  const { whole, line, more } = receiptWords(found);
  const words = [el('b', { 'aria-hidden': 'true' }, whole ? '✓ ' : '⚠ '), line];
  const className = `receipt ${whole ? '' : 'partial'}`;
  if (!more.length) return el('p', { className }, ...words);
  return el('details', { className, open: !whole }, el('summary', {}, ...words, el('span', {}, ` · ${more.length === 1 ? '1 note' : `${more.length} notes`}`)),
    el('ul', {}, ...more.map((each) => el('li', {}, each))));
}

/** A button that copies what `text()` gives when it is pressed. */
function copying(text) {
  const button = press('Copy', async () => {
    const said = await navigator.clipboard.writeText(text()).then(() => 'Copied', () => 'Copying is blocked');
    button.textContent = said;
    announce(said);
    setTimeout(() => { button.textContent = 'Copy'; }, 2000);
  }, { className: 'quiet' });
  return button;
}

/** A caption as people should read it: with the doubt, where the model is unsure. */
const worded = ({ caption, is_unsure: isUnsure }) => (caption && isUnsure ? `Unclear sound, perhaps: ${caption}` : caption);

/** What a transcript leaves out, and why. */
export const leftOut = (result) => result?.auricle?.notice || '';

const facts = (result) => el('small', {}, [
  result.is_unsure && 'unsure', result.confidence != null && `confidence ${result.confidence.toFixed(2)}`, result.model || result.auricle?.model,
].filter(Boolean).join(' · '));

const timed = (list, play) => el('ol', { className: 'timed' }, ...list.map((each) => el('li', {},
  press(span(each), () => play(each.start), { className: 'when', 'aria-label': `Play ${span(each)}` }), el('span', {}, each.text || '(no words)'))));

export function describe(task, again, play) {
  if (task.phase !== 'done') return [task.text ? live('text', 'p', { className: 'say' }) : null, status(task, again)];
  const list = segments(task.result);
  return [
    el('p', { className: 'say' }, worded(task.result) || '(no caption)'),
    el('p', { className: 'row under' }, facts(task.result), copying(() => task.result.caption)),
    list.length > 1 && timed(list, play),
  ];
}

export function answer({ prompt, task }, again, play) {
  const head = el('p', { className: 'question' }, prompt);
  if (task.phase !== 'done') return [head, task.text ? live('text', 'p', { className: 'answer' }) : null, status(task, again)];
  const list = segments(task.result);
  return [head, el('p', { className: 'answer' }, task.result.answer ?? task.text), list.length > 1 && timed(list, play),
    el('p', { className: 'row under' }, facts(task.result)), receipt(task.result)];
}

export function transcript(task, again, play, name) {
  if (!task || task.phase === 'idle') return [el('p', { className: 'row' }, press('Transcribe', again)), el('p', { className: 'hint' }, 'Words with their times, as text, srt, vtt or json.')];
  if (task.phase !== 'done') return [task.text ? live('text', 'p', { className: 'answer' }) : null, status(task, again)];
  const { result } = task;
  const list = segments(result).filter((each) => each.text);
  const stem = name.replace(/\.[^.]*$/, '') || 'transcript';
  const written = { txt: `${result.text}\n`, srt: subtitles(list, 'srt'), vtt: subtitles(list, 'vtt'), json: `${JSON.stringify(result, null, 2)}\n` };
  const choice = el('select', { 'aria-label': 'Format' }, ...Object.keys(written).map((each) => el('option', { value: each }, each)));
  return [
    result.text ? (list.length ? timed(list, play) : el('p', { className: 'answer' }, result.text)) : !leftOut(result) && el('p', { className: 'answer' }, 'No words were found.'),
    leftOut(result) && el('p', { className: result.text ? 'hint' : 'answer' }, `Not written down: ${leftOut(result)}.`),
    result.text && el('p', { className: 'row under' }, choice, copying(() => written[choice.value]),
      press('Download', () => download(written[choice.value], `${stem}.${choice.value}`), { className: 'quiet' })),
    receipt(result),
  ];
}

export function part({ start, stop, text, task }, again, play) {
  return [
    press(span({ start, stop }), () => play(start), { className: 'when', 'aria-label': `Play ${span({ start, stop })}` }),
    task.phase === 'done' ? el('span', {}, worded(task.result) || text) : status(task, again),
  ];
}

export function labels(task, again) {
  if (task.phase !== 'done') return [status(task, again)];
  const shares = Object.entries(task.result.probabilities || {}).sort((a, b) => b[1] - a[1]);
  return [el('ul', { className: 'bars' }, ...shares.map(([label, share], i) => el('li', { className: i ? '' : 'best' },
    el('span', {}, label), el('meter', { value: share, max: 1, 'aria-label': label }), el('span', { className: 'n' }, percent(share))))),
  el('p', { className: 'row under' }, el('small', {}, 'shares of these labels alone'), facts(task.result)), receipt(task.result)];
}

export function hits(task, again, { hits: found, left }, choose) {
  if (task.phase !== 'done') return [live('note', 'p', { className: 'hint' }), status(task, again)];
  return [
    el('ol', { className: 'hits' }, ...found.map((hit, i) => el('li', { className: i ? '' : 'best' },
      press('▶', () => choose(hit, true), { className: 'play-hit', 'aria-label': `Play ${hit.clip.name} at ${seconds(hit.start)} s` }),
      press(hit.clip.name, () => choose(hit, false), { className: 'name' }),
      el('span', { className: 'n', title: '100 × cosine of the clip and the words' }, hit.score.toFixed(1).replace('-', '−')),
      hit.stop - hit.start < hit.clip.duration - 0.01 && el('small', {}, span(hit))))),
    found.length > 0 && el('small', {}, 'Score: 100 × cosine of clip and words.'),
    left.length > 0 && el('p', { className: 'hint' }, `⚠ Not compared, for they could not be read: ${left.join(', ')}.`),
  ];
}

export const clipState = (clip) => {
  const { phase } = clip.describe;
  if (phase === 'done') return worded(clip.describe.result);
  return { queued: 'Queued', uploading: 'Uploading…', working: 'Processing…', streaming: 'Writing…', busy: 'Server busy', offline: '⚠ No connection', locked: 'Needs the API key', error: '⚠ Error', stopped: 'Stopped' }[phase] || '';
};

export const showOffline = (text) => { $('offline').hidden = !text; $('offline').textContent = text; };
