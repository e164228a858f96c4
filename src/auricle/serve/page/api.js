// Requests to the server: upload progress, streams, errors with their codes, the API key.

const KEY = 'auricle-key';

export class ApiError extends Error {
  constructor(message, { status = 0, code = '', retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

export const useKey = (key) => sessionStorage.setItem(KEY, key);

/**
 * Send one request; an XMLHttpRequest because it alone reports both the upload and a growing answer.
 * `onUpload` gets 0…1, `onEvent` each event of a stream. Returns JSON, the last event of a stream, or bytes.
 */
export function request(path, { form, json, bytes = false, signal, onUpload, onEvent } = {}) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    const events = reader(onEvent);
    call.open(form || json ? 'POST' : 'GET', path);
    if (bytes) call.responseType = 'arraybuffer';
    const key = sessionStorage.getItem(KEY);
    if (key) call.setRequestHeader('Authorization', `Bearer ${key}`);
    if (json) call.setRequestHeader('Content-Type', 'application/json');
    const streamed = () => call.status === 200 && (call.getResponseHeader('Content-Type') || '').startsWith('text/event-stream');
    const guarded = (act) => {
      try { act(); } catch (fault) { reject(fault); call.abort(); }
    };
    call.upload.onprogress = (event) => event.lengthComputable && onUpload?.(event.loaded / event.total);
    call.upload.onload = () => onUpload?.(1);
    call.onprogress = () => streamed() && guarded(() => events.read(call.responseText));
    call.onload = () => guarded(() => {
      if (call.status >= 400) throw errorOf(call);
      if (bytes) return resolve(call.response);
      if (!streamed()) return resolve(JSON.parse(call.responseText));
      events.read(call.responseText);
      if (!events.last) throw new ApiError('The answer was cut off before its end.', { code: 'stream_ended' });
      resolve(events.last);
    });
    call.onerror = () => reject(new ApiError('The connection to the server failed.', { code: 'no_connection' }));
    call.onabort = () => reject(new ApiError('Stopped.', { code: 'stopped' }));
    signal?.addEventListener('abort', () => call.abort(), { once: true });
    call.send(form || (json && JSON.stringify(json)) || null);
  });
}

/** Reads server-sent events out of a text that grows; keeps the last one that is no piece of text. */
function reader(onEvent) {
  let done = 0;
  return {
    last: null,
    read(text) {
      for (let end; (end = text.slice(done).search(/\r?\n\r?\n/)) >= 0;) {
        const block = text.slice(done, done + end);
        done += end + text.slice(done + end).match(/^\r?\n\r?\n/)[0].length;
        const data = block.split(/\r?\n/).filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trim()).join('\n');
        if (!data || data.startsWith('[DONE]')) continue;
        const event = JSON.parse(data);
        if (event.error) throw new ApiError(event.error.message, { code: event.error.code || event.error.type });
        if (typeof event.delta !== 'string') this.last = event;
        onEvent?.(event);
      }
    },
  };
}

function errorOf(call) {
  let error = {};
  try {
    const text = call.responseType === 'arraybuffer' ? new TextDecoder().decode(call.response) : call.responseText;
    error = JSON.parse(text).error || {};
  } catch { /* a proxy's page: its status says enough */ }
  const wait = parseFloat(call.getResponseHeader('Retry-After'));
  const retried = call.status === 429 || call.status === 503;
  return new ApiError(error.message || `The server answered ${call.status} ${call.statusText}.`, {
    status: call.status,
    code: error.code || error.type || String(call.status),
    retryAfter: retried ? Math.max(1, wait || 5) : null,
  });
}

export function formOf(file, name, fields) {
  const form = new FormData();
  for (const [field, value] of Object.entries(fields)) form.append(field, value);
  form.append('file', file, name);
  return form;
}

/** The model's log-mel: a line of JSON, then one byte per band and frame, lowest band first. */
export async function mel(file, name, signal) {
  const bytes = new Uint8Array(await request('v1/audio/mel', { form: formOf(file, name, {}), bytes: true, signal }));
  const line = bytes.indexOf(10);
  return { ...JSON.parse(new TextDecoder().decode(bytes.subarray(0, line))), values: bytes.subarray(line + 1) };
}

/** Vectors of unit length for texts or clips. */
export async function embed(model, input, signal) {
  const reply = await request('v1/embeddings', { json: { model, input, encoding_format: 'base64' }, signal });
  return reply.data.map(({ embedding }) => {
    const vector = new Float32Array(Uint8Array.from(atob(embedding), (each) => each.charCodeAt(0)).buffer);
    const length = Math.hypot(...vector) || 1;
    return vector.map((each) => each / length);
  });
}
