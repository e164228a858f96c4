// Samples in the browser: decoding, windows as WAV, the microphone.

export const RATE = 16000;
const LARGEST = 100e6; // bytes: decoding more than this would take gigabytes

/** The clip as mono samples at 16 kHz, or null where this browser cannot decode it. */
export async function decode(blob) {
  if (blob.size > LARGEST) return null;
  try {
    const buffer = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await blob.arrayBuffer());
    const mono = buffer.getChannelData(0).slice();
    for (let c = 1; c < buffer.numberOfChannels; c++) buffer.getChannelData(c).forEach((each, i) => { mono[i] += each; });
    return buffer.numberOfChannels > 1 ? mono.map((each) => each / buffer.numberOfChannels) : mono;
  } catch {
    return null;
  }
}

/** Least and greatest sample of each of at most `columns` stretches, as [low, high, low, high, …]. */
export function peaksOf(samples, columns = 4096) {
  const peaks = new Float32Array(2 * Math.min(columns, samples.length));
  samples.forEach((each, i) => {
    const at = 2 * Math.floor((i * peaks.length) / 2 / samples.length);
    peaks[at] = Math.min(peaks[at], each);
    peaks[at + 1] = Math.max(peaks[at + 1], each);
  });
  return peaks;
}

/** 16-bit PCM in a WAV file. */
export function wav(samples, rate = RATE) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, 'RIFF'); text(8, 'WAVEfmt '); text(36, 'data');
  [[4, view.byteLength - 8], [16, 16], [24, rate], [28, 2 * rate], [40, 2 * samples.length]].forEach(([at, n]) => view.setUint32(at, n, true));
  [[20, 1], [22, 1], [32, 2], [34, 16]].forEach(([at, n]) => view.setUint16(at, n, true));
  samples.forEach((each, i) => view.setInt16(44 + 2 * i, Math.round(32767 * Math.max(-1, Math.min(1, each))), true));
  return new Blob([view], { type: 'audio/wav' });
}

/** Equal parts of at most `longest` seconds, as [start, stop]. */
export function parts(duration, longest) {
  const count = Math.max(1, Math.ceil(duration / longest - 0.01));
  return Array.from({ length: count }, (_, i) => [(i * duration) / count, ((i + 1) * duration) / count]);
}

export const cut = (samples, [start, stop]) => wav(samples.subarray(Math.round(start * RATE), Math.round(stop * RATE)));

export async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = '';
  for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(text);
}

/** Why there is no microphone, in words. */
export function microphoneFault(fault) {
  if (!window.isSecureContext) {
    return `Browsers give the microphone only to pages at https:// or localhost; this one is at ${location.origin}. Choose a file instead.`;
  }
  if (fault?.name === 'NotAllowedError') return 'The microphone is blocked for this page. Allow it beside the address, then press Record again.';
  if (fault?.name === 'NotFoundError') return 'No microphone was found. Connect one, or choose a file.';
  return `The microphone could not be opened (${fault?.name || 'unknown'}). Close other programs that use it, or choose a file.`;
}

/** Start to record; `onLevel(peak, seconds)` is called for each block. Returns `stop()`, which gives a WAV file. */
export async function record(onLevel) {
  if (!navigator.mediaDevices?.getUserMedia) throw new DOMException('', 'NotAllowedError');
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  const context = new AudioContext();
  const blocks = [];
  let count = 0;
  try {
    await context.audioWorklet.addModule(new URL('recorder.js', import.meta.url));
  } catch (fault) {
    stream.getTracks().forEach((track) => track.stop());
    throw fault;
  }
  const node = new AudioWorkletNode(context, 'recorder', { numberOfOutputs: 0 });
  node.port.onmessage = ({ data }) => {
    blocks.push(data);
    count += data.length;
    onLevel(data.reduce((peak, each) => Math.max(peak, Math.abs(each)), 0), count / context.sampleRate);
  };
  context.createMediaStreamSource(stream).connect(node);
  return () => {
    stream.getTracks().forEach((track) => track.stop());
    context.close();
    const samples = new Float32Array(count);
    blocks.reduce((at, block) => (samples.set(block, at), at + block.length), 0);
    return wav(samples, context.sampleRate);
  };
}
