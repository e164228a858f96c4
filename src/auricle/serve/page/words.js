// Elements, times and receipts in words, subtitles. Text of the server is only ever set as text.

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name in node) node[name] = value;
    else if (value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null && child !== false));
  return node;
}

export const $ = (id) => document.getElementById(id);
export const seconds = (s, digits = 1) => s.toFixed(digits);
export const span = ({ start, stop }) => `${seconds(start)}–${seconds(stop)} s`;
export const percent = (share) => `${(100 * share).toFixed(share > 0.0995 ? 0 : 1)} %`;

export function clock(s) {
  const tenths = Math.floor(10 * (s || 0) + 1e-6);
  return `${Math.floor(tenths / 600)}:${String(Math.floor(tenths / 10) % 60).padStart(2, '0')}.${tenths % 10}`;
}

/** Segments as {start, stop, text}: the native routes write start_s and stop_s, the transcription route start and end. */
export const segments = (result) => (result?.segments || [])
  .map((each) => ({ start: each.start_s ?? each.start, stop: each.stop_s ?? each.end, text: each.text.trim() }));

export const receiptOf = (result) => result?.receipt || result?.auricle?.receipt || null;

/** A receipt as one line and, where there is more to say, a list of sentences. */
export function receiptWords(receipt) {
  const spans = [];
  for (const { start_s: start, stop_s: stop } of receipt.read || []) {
    const last = spans.at(-1);
    if (last && start <= last.stop + 0.05) last.stop = Math.max(last.stop, stop);
    else spans.push({ start, stop });
  }
  const of = (list, say) => (list || []).map(say);
  const length = ({ start_s: start, stop_s: stop }) => (stop - start < 0.1
    ? `${Math.max(1, Math.round(1000 * (stop - start)))} ms at ${seconds(start)} s` : span({ start, stop }));
  const more = [
    ...of(receipt.skipped, (each) => `${length(each)} skipped: ${each.reason}.`),
    ...of(receipt.dropped, (each) => `${length(each)} not processed: ${each.reason}.`),
    ...of(receipt.overlaps, (each) => `${length(each)} processed twice, around a cut.`),
    receipt.truncated && 'The file ends before its header says.',
    receipt.damaged > 0 && `Places that could not be decoded: ${receipt.damaged}.`,
    receipt.padded_s >= 0.01 && `${seconds(receipt.padded_s, 2)} s of silence added at the end, to fill the last token.`,
    ...of(receipt.notes, (each) => `${each[0].toUpperCase()}${each.slice(1)}${each.endsWith('.') ? '' : '.'}`),
  ].filter(Boolean);
  const whole = receipt.complete !== false;
  const read = spans.length ? `${spans.map(span).join(', ')} processed` : 'Nothing was processed';
  return { whole, line: whole ? read : `${read}; not the whole clip`, more };
}

/** Subtitles of segments: milliseconds are rounded once, then split. */
export function subtitles(list, format) {
  const comma = format === 'srt' ? ',' : '.';
  const stamp = (s) => {
    const ms = Math.round(1000 * s);
    const pad = (n, width = 2) => String(Math.floor(n)).padStart(width, '0');
    return `${pad(ms / 3.6e6)}:${pad((ms / 6e4) % 60)}:${pad((ms / 1000) % 60)}${comma}${pad(ms % 1000, 3)}`;
  };
  const cues = list.map((each, i) => `${format === 'srt' ? `${i + 1}\n` : ''}${stamp(each.start)} --> ${stamp(each.stop)}\n${each.text.replace(/\n{2,}/g, '\n')}\n`);
  return (format === 'vtt' ? ['WEBVTT\n', ...cues] : cues).join('\n');
}

export function download(text, name) {
  const url = URL.createObjectURL(new Blob([text], { type: 'text/plain;charset=utf-8' }));
  el('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

export const announce = (text) => { $('say').textContent = text; };
