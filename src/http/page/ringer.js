// Tells by sound that it rings: here, or at the other end.

export class Ringer {
  #context = null;
  #timer = null;
  #kind = null;

  /** Call it in a click handler: browsers allow no sound before one. */
  unlock() {
    this.#context ??= new AudioContext();
    this.#context.resume();
  }

  /** @param {'incoming' | 'outgoing' | null} kind */
  ring(kind) {
    if (kind === this.#kind) return;
    this.#kind = kind;
    clearInterval(this.#timer);
    if (!kind || this.#context?.state !== 'running') return;
    const play = kind === 'incoming' ? () => this.#chime() : () => this.#tone(425, 0, 1, 0.06);
    play();
    this.#timer = setInterval(play, kind === 'incoming' ? 2_500 : 4_000);
  }

  #chime() {
    [659, 784, 988, 784].forEach((hertz, index) => this.#tone(hertz, index * 0.18, 0.32, 0.14));
  }

  #tone(hertz, after, seconds, loudness) {
    const context = this.#context;
    const from = context.currentTime + after;
    const oscillator = new OscillatorNode(context, { frequency: hertz });
    const gain = new GainNode(context, { gain: 0 });
    gain.gain.linearRampToValueAtTime(0, from);
    gain.gain.linearRampToValueAtTime(loudness, from + 0.02);
    gain.gain.setValueAtTime(loudness, from + seconds * 0.6);
    gain.gain.linearRampToValueAtTime(0, from + seconds);
    oscillator.connect(gain).connect(context.destination);
    oscillator.start(from);
    oscillator.stop(from + seconds);
  }
}
