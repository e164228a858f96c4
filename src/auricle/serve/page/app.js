// The page: clips, the player, and which request belongs to which form.
import { embed, formOf, mel, request, useKey } from './api.js';
import { RATE, base64, cut, decode, microphoneFault, parts, peaksOf, record } from './audio.js';
import { connection, newTask, onChange, run, watch } from './jobs.js';
import * as panels from './panels.js';
import { decorate, drawMel, drawWave, scrubbing, showCoverage, showLabels, showTicks, showTime } from './viewer.js';
import { $, announce, clock, el, receiptOf, seconds, segments } from './words.js';

const EXAMPLES = [['voice_over_piano.ogg', 'A man over a piano', '5 s'], ['alarm.ogg', 'An alarm', '2 s'], ['voice.ogg', 'Three digits, spoken', '2 s']];
const IDEAS = ['How many people speak?', 'Which instruments play?', 'Is there any music?'];
const STREAMED = 30; // s; the transcript of a longer clip is shown while it is written
const PARTS = 100; // more labels than this are no help
const SEARCH_WINDOW = 10; // s, what the model of clips and words was trained on
const SOUNDS = /\.(wav|wave|flac|ogg|oga|opus|mp3|mp4|m4a|aac|webm|weba|mka|aif|aiff|au|caf|wma|amr|3gp)$/i;
const still = matchMedia('(prefers-reduced-motion: reduce)');
const audio = $('audio');
const state = { clips: [], active: null, models: [], search: { task: newTask(), hits: [], left: [] }, server: 'Connecting…', serial: 0 };

// ── Clips ────────────────────────────────────────────────────────────────────────────────────────────────────────────

function addFiles(files) {
  const sounds = [...files].filter((file) => /^(audio|video)\//.test(file.type) || SOUNDS.test(file.name) || !file.type);
  const others = files.length - sounds.length;
  $('mic').hidden = !others;
  if (others) $('mic').textContent = `${others === 1 ? 'One file was' : `${others} files were`} left out: no audio or video.`;
  const added = sounds.map((file) => addClip(file, file.name));
  if (added.length) activate(added[0]);
}

function addClip(blob, name) {
  const clip = { id: ++state.serial, blob, name, url: URL.createObjectURL(blob), duration: 0, describe: newTask(), questions: [], labels: [], parts: [] };
  clip.item = el('li', {},
    el('button', { type: 'button', className: 'clip', onclick: () => activate(clip) }, el('b', {}, name), el('span', {})),
    el('button', { type: 'button', className: 'quiet', 'aria-label': `Remove ${name}`, onclick: () => remove(clip) }, '×'));
  state.clips.push(clip);
  $('clips').append(clip.item);
  document.body.classList.remove('empty');
  $('clip').hidden = false;
  describe(clip);
  return clip;
}

/** The samples of a clip, or null; kept while the clip is in view, for an hour takes 230 MB. */
function load(clip) {
  clip.loading ||= decode(clip.blob).then((samples) => {
    if (samples) Object.assign(clip, { duration: samples.length / RATE, peaks: peaksOf(samples) });
    return samples;
  });
  return clip.loading;
}

function forget(clip) {
  if (clip && clip !== state.active) clip.loading = null;
}

function remove(clip) {
  [clip.describe, clip.transcribe, clip.classify, ...clip.questions.map(({ task }) => task), ...clip.parts.map(({ task }) => task)].forEach((task) => task?.stop());
  URL.revokeObjectURL(clip.url);
  clip.item.remove();
  state.clips = state.clips.filter((each) => each !== clip);
  state.search.hits = state.search.hits.filter((hit) => hit.clip !== clip);
  if (clip === state.active) activate(state.clips[0] || null);
  render();
}

function activate(clip) {
  audio.pause();
  const before = state.active;
  state.active = clip;
  forget(before);
  document.body.classList.toggle('empty', !clip);
  $('clip').hidden = !clip;
  document.title = clip ? `${clip.name} — Auricle` : 'Auricle';
  if (!clip) { audio.removeAttribute('src'); decorate($('decoration')); return; }
  audio.src = clip.url;
  $('clip-name').textContent = clip.name;
  $('part').value = '';
  load(clip).then(() => clip === state.active && drawAll());
  showMel(clip);
  drawAll();
  render();
}

async function showMel(clip) {
  if (clip.melWanted) return;
  clip.melWanted = newTask();
  await load(clip);
  const found = await run(clip.melWanted, ({ signal }) => mel(clip.blob, clip.name, signal));
  clip.mel = found;
  if (found) clip.duration ||= found.frames / found.frame_hz;
  if (clip === state.active) drawAll();
}

function drawAll() {
  const clip = state.active;
  if (!clip) { decorate($('decoration')); return; }
  drawMarks(clip);
  drawMel(clip);
  showTicks(clip);
  showTime(audio.currentTime || 0, clip.duration);
  if (clip.unplayable) $('time').textContent = 'This browser cannot play the clip.';
  if (clip.duration) choosePart(clip.duration);
  $('clip-facts').textContent = [clip.duration && `${seconds(clip.duration)} s`, clip.blob.size < 1e6 ? `${Math.ceil(clip.blob.size / 1000)} kB` : `${(clip.blob.size / 1e6).toFixed(1)} MB`].filter(Boolean).join(' · ');
}

/** Offer lengths that give at most PARTS parts; choose the longest that gives at least three. */
function choosePart(duration) {
  const options = [...$('part').options];
  options.slice(0, -1).forEach((each) => { each.disabled = duration / each.value > PARTS; });
  const fitting = options.filter((each) => !each.disabled);
  const chosen = $('part').selectedOptions[0];
  if (!chosen || chosen.disabled) $('part').value = (fitting.filter((each) => duration / each.value >= 3).pop() || fitting[0]).value;
}

function drawMarks(clip) {
  showLabels(clip, playFrom);
  drawWave(clip);
  showCoverage(clip, receiptOf(clip.describe.result));
  $('coverage-words').replaceChildren(...[panels.receipt(clip.describe.result)].filter(Boolean));
}

// ── The player ───────────────────────────────────────────────────────────────────────────────────────────────────────

function seek(time) {
  if (!state.active) return;
  audio.currentTime = Math.max(0, Math.min(state.active.duration, time));
  showTime(audio.currentTime, state.active.duration);
}

const play = () => audio.play().catch((fault) => fault.name !== 'AbortError' && announce('This browser cannot play the clip.'));
const toggle = () => (audio.paused ? play() : audio.pause());
function playFrom(time) { seek(time); play(); }

function follow() {
  if (!state.active) return;
  showTime(audio.currentTime, state.active.duration);
  if (!audio.paused && !still.matches) requestAnimationFrame(follow);
}

function wirePlayer() {
  const shown = () => {
    $('play').setAttribute('aria-label', audio.paused ? 'Play' : 'Pause');
    $('play').classList.toggle('playing', !audio.paused);
    follow();
  };
  ['play', 'pause', 'ended'].forEach((each) => audio.addEventListener(each, shown));
  audio.addEventListener('timeupdate', () => state.active && showTime(audio.currentTime, state.active.duration));
  audio.addEventListener('loadedmetadata', () => {
    $('play').disabled = false;
    if (state.active && !state.active.duration && Number.isFinite(audio.duration)) { state.active.duration = audio.duration; drawAll(); }
  });
  audio.addEventListener('error', () => {
    $('play').disabled = true;
    if (state.active) state.active.unplayable = true;
    drawAll();
  });
  $('play').addEventListener('click', toggle);
  scrubbing(seek, () => state.active?.duration || 0);
}

// ── Requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────

const modelFor = (use) => (state.models.find((each) => each.capabilities?.includes(use)) || state.models[0])?.id || '';
const post = (path, clip, fields) => ({ signal, onUpload, onEvent }) => request(path, { form: formOf(clip.blob, clip.name, fields), signal, onUpload, onEvent });

async function describe(clip) {
  clip.describe = newTask();
  render();
  const found = await run(clip.describe, post('v1/audio/describe', clip, { stream: 'true' }), { queue: true });
  if (found && segments(found).length > 1) label(clip, segments(found));
  if (clip === state.active) drawMarks(clip);
  tell(clip.describe, `${clip.name}: ${found?.is_unsure ? 'unsure, ' : ''}${found?.caption}`);
}

async function ask(clip, prompt) {
  const entry = { prompt, task: newTask(), node: el('div', { className: 'entry' }) };
  clip.questions.unshift(entry);
  render();
  const found = await run(entry.task, post('v1/audio/ask', clip, { prompt, stream: 'true' }));
  tell(entry.task, `Answer: ${found?.answer}`);
}

async function transcribe(clip) {
  clip.transcribe = newTask();
  const model = modelFor('transcriptions');
  const send = (fields) => post('v1/audio/transcriptions', clip, { model, ...fields });
  const found = await run(clip.transcribe, async (hooks) => {
    const streamed = clip.duration > STREAMED && await send({ response_format: 'json', stream: 'true' })(hooks);
    return streamed.segments ? streamed : send({ response_format: 'verbose_json' })(hooks);
  });
  if (found && !clip.parts.length) label(clip, segments(found).filter((each) => each.text));
  tell(clip.transcribe, `Transcript: ${found?.text || panels.leftOut(found) || 'no words'}`);
}

async function classify(clip, labels) {
  clip.classify = newTask();
  const found = await run(clip.classify, post('v1/audio/classify', clip, { labels }));
  tell(clip.classify, `Best label: ${found?.labels?.[0]}`);
}

async function captionParts(clip, longest) {
  clip.parts.forEach(({ task }) => task.stop());
  const samples = await load(clip);
  if (!samples) { clip.partsFault = 'This browser cannot decode the clip, so it cannot be cut into parts here.'; render(); return; }
  clip.parts = parts(clip.duration, longest).map(([start, stop]) => ({ start, stop, text: '', task: newTask(), node: el('li', {}) }));
  const { parts: mine } = clip;
  label(clip, mine);
  await Promise.all(mine.map((part) => captionPart(clip, part, samples)));
  if (mine === clip.parts) announce(`${mine.length} parts: ${mine.filter(({ task }) => task.phase === 'done').length} with a caption`);
}

async function captionPart(clip, part, samples) {
  const name = `${clip.name.replace(/\.[^.]*$/, '')} ${seconds(part.start)}-${seconds(part.stop)}.wav`;
  const file = { blob: cut(samples, [part.start, part.stop]), name };
  const found = await run(part.task, post('v1/audio/describe', file, {}), { queue: true });
  part.text = found?.caption || '';
  if (clip.parts.includes(part)) label(clip, clip.parts);
}

function label(clip, list) {
  clip.labels = list;
  if (clip === state.active) drawMarks(clip);
  render();
}

async function search(query) {
  state.search.task.stop();
  const task = newTask();
  const left = [];
  Object.assign(state.search, { task, query, left });
  const model = modelFor('embeddings');
  const found = await run(task, async ({ signal }) => {
    const [words] = await embed(model, [query], signal);
    const hits = [];
    left.length = 0;
    for (const [i, clip] of state.clips.entries()) {
      task.note = `Comparing clip ${i + 1} of ${state.clips.length}.`;
      render();
      try {
        clip.vectors ||= await vectorsOf(clip, model, signal);
      } catch (error) {
        if (signal.aborted || ![400, 413, 415, 422].includes(error.status)) throw error;
        left.push(clip.name); // the fault is the clip's: the others can still be compared
        continue;
      }
      const scored = clip.vectors.map(({ start, stop, vector }) => ({ clip, start, stop, score: 100 * vector.reduce((sum, each, d) => sum + each * words[d], 0) }));
      hits.push(scored.reduce((best, each) => (each.score > best.score ? each : best)));
    }
    return hits.sort((a, b) => b.score - a.score);
  });
  if (state.search.task !== task) return;
  if (found) state.search.hits = found;
  render();
  tell(task, found?.length ? `Best match: ${found[0].clip.name}` : 'No clips');
}

/** Vectors of a clip's windows; of the whole file where the browser cannot cut it. */
async function vectorsOf(clip, model, signal) {
  const samples = await load(clip);
  const spans = samples ? parts(clip.duration, SEARCH_WINDOW) : [[0, clip.duration]];
  const vectors = [];
  for (const each of spans) {
    const file = samples ? cut(samples, each) : clip.blob;
    const format = samples ? 'wav' : clip.name.split('.').pop().toLowerCase();
    const [vector] = await embed(model, [{ type: 'input_audio', input_audio: { data: await base64(file), format } }], signal);
    vectors.push({ start: each[0], stop: each[1], vector });
  }
  forget(clip);
  return vectors;
}

const tell = (task, text) => {
  if (task.phase === 'done') announce(text);
  else if (task.phase === 'error') announce(`Error: ${task.error.message}`);
};

// ── Showing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

let due = false;
function render() {
  if (due) return;
  due = true;
  setTimeout(() => { due = false; renderNow(); }, 16);
}

function renderNow() {
  panels.showOffline(connection.online ? '' : '⚠ The server does not answer. What you see stays; new requests wait until it is back.');
  $('server').classList.toggle('off', !connection.online);
  $('server-text').textContent = connection.online ? state.server : 'No connection';
  $('search-form').hidden = state.clips.length === 0;
  for (const clip of state.clips) {
    clip.item.classList.toggle('active', clip === state.active);
    clip.item.firstChild.setAttribute('aria-current', String(clip === state.active));
    clip.item.firstChild.lastChild.textContent = panels.clipState(clip);
  }
  const { task, hits, left, query } = state.search;
  panels.paint($('search-out'), task, () => panels.hits(task, () => search(query), { hits, left }, (hit, aloud) => { activate(hit.clip); if (aloud) playFrom(hit.start); else seek(hit.start); }), hits.length);
  if (state.active) renderClip(state.active);
}

function melNote({ melWanted, describe: { error } }) {
  if (melWanted.phase === 'done') return '';
  if (melWanted.phase !== 'error') return 'Computing the spectrogram…';
  return melWanted.error.message === error?.message ? 'No spectrogram' : `No spectrogram: ${melWanted.error.message}`;
}

function renderClip(clip) {
  $('mel-note').textContent = melNote(clip);
  $('stage').classList.toggle('flat', !clip.peaks && Boolean(clip.unplayable));
  $('stage').classList.toggle('blank', !clip.peaks && clip.melWanted.phase === 'error');
  const redo = (act) => () => act(clip);
  panels.paint($('describe-out'), clip.describe, () => panels.describe(clip.describe, redo(describe), playFrom));
  panels.paint($('transcribe-out'), clip.transcribe, () => panels.transcript(clip.transcribe, redo(transcribe), playFrom, clip.name), clip.id);
  panels.paint($('classify-out'), clip.classify, () => (clip.classify ? panels.labels(clip.classify, () => classify(clip, $('words').value)) : []), clip.id);
  rows($('ask-out'), clip.questions.map((entry) => {
    panels.paint(entry.node, entry.task, () => panels.answer(entry, () => again(clip, entry), playFrom));
    return entry.node;
  }));
  rows($('parts-out'), clip.partsFault ? [el('p', { className: 'hint' }, clip.partsFault)] : [partsList(clip)].filter(Boolean));
}

function again(clip, entry) {
  clip.questions = clip.questions.filter((each) => each !== entry);
  ask(clip, entry.prompt);
}

function partsList(clip) {
  if (!clip.parts.length) return null;
  clip.partsNode ||= el('ol', { className: 'timed' });
  for (const part of clip.parts) {
    panels.paint(part.node, part.task, () => panels.part(part, async () => captionPart(clip, part, await load(clip)), playFrom));
  }
  rows(clip.partsNode, clip.parts.map(({ node }) => node));
  return clip.partsNode;
}

function rows(box, nodes) {
  if (nodes.length !== box.children.length || nodes.some((node, i) => node !== box.children[i])) box.replaceChildren(...nodes);
}

// ── Forms, files, keys ───────────────────────────────────────────────────────────────────────────────────────────────

function onSubmit(form, act) {
  $(form).addEventListener('submit', (event) => { event.preventDefault(); act(); });
}

function wireForms() {
  onSubmit('ask-form', () => { ask(state.active, $('ask').value.trim()); $('ask').value = ''; });
  onSubmit('classify-form', () => classify(state.active, $('words').value));
  onSubmit('parts-form', () => captionParts(state.active, Number($('part').value)));
  onSubmit('search-form', () => search($('search').value.trim()));
  $('ideas').append(...IDEAS.map((idea) => el('button', { type: 'button', onclick: () => ask(state.active, idea) }, idea)));
  $('examples').append(...EXAMPLES.map(([name, title, length]) => el('button', {
    type: 'button',
    onclick: async () => activate(addClip(new File([await request(`page/${name}`, { bytes: true })], name, { type: 'audio/ogg' }), name)),
  }, el('b', {}, title), el('small', {}, length))));
}

/** The files of what was dropped, those in folders too. */
async function dropped({ items, files }) {
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...files];
  const found = [];
  const walk = async (entry) => {
    if (entry.isFile) { found.push(await new Promise((resolve, reject) => entry.file(resolve, reject))); return; }
    const folder = entry.createReader();
    for (let batch; (batch = await new Promise((resolve, reject) => folder.readEntries(resolve, reject))).length;) {
      for (const each of batch) await walk(each);
    }
  };
  for (const entry of entries) await walk(entry);
  return found;
}

function wireFiles() {
  $('pick').addEventListener('click', () => $('file').click());
  $('file').addEventListener('change', () => { addFiles([...$('file').files]); $('file').value = ''; });
  const dragging = (on) => (event) => {
    if (![...event.dataTransfer.types].includes('Files')) return;
    event.preventDefault();
    document.body.classList.toggle('dragging', on);
  };
  document.addEventListener('dragover', dragging(true));
  document.addEventListener('dragleave', (event) => !event.relatedTarget && document.body.classList.remove('dragging'));
  document.addEventListener('drop', async (event) => { dragging(false)(event); addFiles(await dropped(event.dataTransfer)); });
}

function wireRecorder() {
  let stop = null;
  let number = 0;
  const shown = (on) => { $('recording').hidden = !on; $('drop').classList.toggle('live', on); };
  const level = (peak, time) => {
    $('rec-time').textContent = clock(time);
    const canvas = $('rec-level');
    const context = canvas.getContext('2d');
    context.drawImage(canvas, -2, 0);
    context.clearRect(canvas.width - 2, 0, 2, canvas.height);
    context.fillStyle = peak > 0.98 ? '#ff7a6b' : '#8fd69b';
    const height = Math.max(1, Math.sqrt(peak) * canvas.height);
    context.fillRect(canvas.width - 2, (canvas.height - height) / 2, 1, height);
  };
  $('record').addEventListener('click', async () => {
    if (stop) return;
    $('mic').hidden = true;
    try {
      stop = await record(level);
      shown(true);
      $('rec-stop').focus();
      announce('Recording');
    } catch (fault) {
      $('mic').hidden = false;
      $('mic').textContent = microphoneFault(fault);
    }
  });
  const end = (use) => () => {
    const file = stop?.();
    stop = null;
    shown(false);
    $('rec-level').getContext('2d').clearRect(0, 0, 400, 48);
    if (use && file) activate(addClip(file, `recording ${++number}.wav`));
  };
  $('rec-stop').addEventListener('click', end(true));
  $('rec-drop').addEventListener('click', end(false));
}

function wireKeys() {
  document.addEventListener('keydown', (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || !state.active) return;
    if (key === 'Escape' && target.matches('input')) target.blur();
    if (target.matches('input, select, textarea')) return;
    const acts = {
      ArrowLeft: () => seek(audio.currentTime - 1),
      ArrowRight: () => seek(audio.currentTime + 1),
      '/': () => $('search').focus(),
      a: () => $('ask').focus(),
      ...(target.id === 'scrub' && { Home: () => seek(0), End: () => seek(state.active.duration) }),
      ...(!target.matches('button, a, summary') && { ' ': toggle }),
    };
    if (!acts[key]) return;
    event.preventDefault();
    acts[key]();
  });
}

// ── The server ───────────────────────────────────────────────────────────────────────────────────────────────────────

let keyGiven = null;
function askKey(message) {
  $('key-form').hidden = false;
  $('key-form').querySelector('label').textContent = message;
  keyGiven ||= (() => { let resolve; const promise = new Promise((done) => { resolve = done; }); return { promise, resolve }; })();
  $('key').focus();
  return keyGiven.promise;
}

async function connect() {
  const task = newTask();
  const found = await run(task, () => request('v1/models'));
  state.models = found?.data || [];
  $('server').classList.toggle('ready', Boolean(found));
  state.server = found ? `Ready · ${state.models[0]?.id || 'no model'}` : task.error?.message || 'Stopped';
  render();
}

onChange(render, askKey);
onSubmit('key-form', () => { useKey($('key').value); $('key').value = ''; $('key-form').hidden = true; keyGiven?.resolve(); keyGiven = null; });
wireForms();
wireFiles();
wireRecorder();
wirePlayer();
wireKeys();
decorate($('decoration'));
addEventListener('resize', () => requestAnimationFrame(drawAll));
addEventListener('offline', watch);
addEventListener('online', watch);
connect();
