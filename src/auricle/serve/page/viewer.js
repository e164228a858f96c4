// The clip as a picture: waveform, the model's mel spectrogram, labels, coverage, and where the player is.
import { $, clock, el, seconds, span } from './words.js';

const STOPS = [[11, 18, 32], [15, 42, 84], [0, 96, 156], [28, 160, 178], [140, 212, 150], [250, 244, 190]];
const WIDEST = 4096; // columns of a picture
const HZ = [250, 500, 1000, 2000, 4000];
const COLOURS = Array.from({ length: 256 }, (_, i) => {
  const at = (i / 255) * (STOPS.length - 1);
  const low = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[low].map((each, c) => Math.round(each + (at - low) * (STOPS[low + 1][c] - each)));
});
const toMel = (hz) => 2595 * Math.log10(1 + hz / 700);

/** Set a canvas to the pixels it covers; gives its context, width and height. */
function sized(canvas) {
  const scale = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * scale));
  const height = Math.max(1, Math.round(canvas.clientHeight * scale));
  Object.assign(canvas, { width, height });
  return [canvas.getContext('2d'), width, height];
}

/** Values (bands, frames), lowest band first, as a picture with the lowest band at the bottom. */
function picture(values, bands, frames) {
  const pool = Math.ceil(frames / WIDEST);
  const width = Math.ceil(frames / pool);
  const sample = values.filter((_, i) => i % Math.ceil(values.length / 50000) === 0).sort();
  const low = sample[Math.floor(0.1 * sample.length)];
  const range = Math.max(1, sample[Math.floor(0.998 * (sample.length - 1))] - low);
  const image = new ImageData(width, bands);
  for (let band = 0; band < bands; band++) {
    for (let x = 0; x < width; x++) {
      let peak = 0;
      for (let f = x * pool; f < Math.min(frames, (x + 1) * pool); f++) peak = Math.max(peak, values[band * frames + f]);
      const shade = Math.max(0, Math.min(255, Math.round((255 * (peak - low)) / range)));
      image.data.set([...COLOURS[shade], 255], 4 * ((bands - 1 - band) * width + x));
    }
  }
  const canvas = el('canvas', { width, height: bands });
  canvas.getContext('2d').putImageData(image, 0, 0);
  return canvas;
}

export function drawWave({ peaks }) {
  const [context, width, height] = sized($('wave').querySelector('canvas'));
  if (!peaks) return;
  const middle = height / 2;
  const scale = (0.92 * middle) / Math.max(0.02, peaks.reduce((most, each) => Math.max(most, Math.abs(each)), 0));
  const columns = peaks.length / 2;
  context.fillStyle = '#8fc7ee';
  for (let x = 0; x < width; x++) {
    const first = Math.floor((x * columns) / width);
    const span = peaks.subarray(2 * first, 2 * Math.max(first + 1, Math.floor(((x + 1) * columns) / width)));
    const [low, high] = [Math.min(...span), Math.max(...span)];
    context.fillRect(x, middle - high * scale, 1, Math.max(1, (high - low) * scale));
  }
}

export function drawMel(clip) {
  const [context, width, height] = sized($('mel').querySelector('canvas'));
  const { mel } = clip;
  $('hz').replaceChildren();
  if (!mel) return;
  clip.picture ||= picture(mel.values, mel.num_mels, mel.frames);
  context.imageSmoothingQuality = 'high';
  context.drawImage(clip.picture, 0, 0, Math.min(1, mel.frames / mel.frame_hz / clip.duration) * width, height);
  const [least, most] = [toMel(mel.f_min), toMel(mel.f_max)];
  $('hz').append(...HZ.filter((hz) => hz > mel.f_min && hz < mel.f_max).map((hz) => {
    const item = el('li', {}, hz < 1000 ? `${hz}` : `${hz / 1000}k`);
    item.style.bottom = `${(100 * (toMel(hz) - least)) / (most - least)}%`;
    return item;
  }));
}

/** A quiet picture for the page without clips. */
export function decorate(canvas) {
  const [bands, frames] = [64, 220];
  const values = Float32Array.from({ length: bands * frames }, (_, i) => {
    const [band, x] = [Math.floor(i / frames), (i % frames) / frames];
    const note = 12 + 5 * Math.sin(9 * x) + 3 * Math.sin(23 * x + 1);
    const line = Math.max(...[1, 2, 3, 4, 5].map((k) => Math.exp(-(((band - note * k ** 0.8) / 1.4) ** 2)) / k ** 0.6));
    return 255 * line * (0.55 + 0.45 * Math.sin(40 * x) ** 2) * Math.sin(Math.PI * x);
  });
  const [context, width, height] = sized(canvas);
  context.drawImage(picture(values, bands, frames), 0, 0, width, height);
}

const at = (node, start, stop, duration) => {
  node.style.left = `${(100 * start) / duration}%`;
  node.style.width = `${(100 * (Math.min(stop, duration) - start)) / duration}%`;
  return node;
};

export function showLabels({ labels = [], duration }, play) {
  $('wave').classList.toggle('labelled', labels.length > 0);
  $('labels').replaceChildren(...labels.filter(() => duration).map((each) => at(
    el('button', { type: 'button', title: `${span(each)}: ${each.text}`, onclick: () => play(each.start), 'aria-label': `Play ${span(each)}: ${each.text}` }, el('span', {}, each.text || '…')),
    each.start, each.stop, duration,
  )));
}

export function showCoverage({ duration }, receipt) {
  const bars = (list, kind) => (list || []).map((each) => at(el('i', { className: kind, title: each.reason || '' }), each.start_s, each.stop_s, duration));
  $('coverage').replaceChildren(...(receipt && duration ? [...bars(receipt.read, 'read'), ...bars(receipt.skipped, 'skipped')] : []));
}

export function showTicks({ duration }) {
  if (!duration) return $('ticks').replaceChildren();
  const room = Math.max(3, $('ticks').clientWidth / 90);
  const step = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800].find((each) => duration / each <= room) || 3600;
  const ticks = Array.from({ length: Math.floor(duration / step) + 1 }, (_, i) => i * step);
  return $('ticks').replaceChildren(...ticks.filter((each) => each < 0.97 * duration || each === 0)
    .map((each) => at(el('li', {}, step < 1 ? `${seconds(each)} s` : each < 60 ? `${each} s` : clock(each).slice(0, -2)), each, each, duration)));
}

export function showTime(time, duration) {
  const share = duration ? Math.min(1, time / duration) : 0;
  $('playhead').style.left = `${100 * share}%`;
  $('time').textContent = `${clock(time)} / ${clock(duration)}`;
  const scrub = $('scrub');
  scrub.setAttribute('aria-valuemax', (duration || 0).toFixed(1));
  scrub.setAttribute('aria-valuenow', time.toFixed(1));
  scrub.setAttribute('aria-valuetext', `${seconds(time)} of ${seconds(duration || 0)} seconds`);
}

/** Where the pointer is: a press or a drag seeks, a mere move shows the time. */
export function scrubbing(seek, duration) {
  const scrub = $('scrub');
  const hover = $('hover');
  const share = (event) => {
    const box = scrub.getBoundingClientRect();
    return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
  };
  scrub.addEventListener('pointerdown', (event) => { scrub.setPointerCapture(event.pointerId); seek(share(event) * duration()); });
  scrub.addEventListener('pointermove', (event) => {
    hover.style.left = `${100 * share(event)}%`;
    hover.firstChild.textContent = clock(share(event) * duration());
    if (event.buttons & 1) seek(share(event) * duration());
  });
}
