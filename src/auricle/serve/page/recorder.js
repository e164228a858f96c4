// Hands the microphone's samples, mixed to mono, to the page in blocks of 512.
registerProcessor('recorder', class extends AudioWorkletProcessor {
  block = new Float32Array(512);
  filled = 0;

  process([channels]) {
    if (!channels.length) return true;
    for (let i = 0; i < channels[0].length; i++) {
      this.block[this.filled++] = channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length;
    }
    if (this.filled === this.block.length) {
      this.port.postMessage(this.block.slice());
      this.filled = 0;
    }
    return true;
  }
});
