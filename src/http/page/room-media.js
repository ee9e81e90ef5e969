// The media of a room: what this browser sends, and a tile with picture and sound for each other member.

import { SessionError } from './session.js';
import { WhepPlayer } from './whep.js';
import { WhipPublisher } from './whip.js';

/** An Exchange (session.js) over the room's signalling. */
class RoomExchange {
  #media = null;

  constructor(signalling, type, fields) {
    Object.assign(this, { signalling, type, fields });
  }

  async offer(sdp) {
    try {
      const answer = await this.signalling.request(this.type, { ...this.fields, offer: sdp });
      this.#media = answer.media;
      return answer.answer;
    } catch ({ reason, message }) {
      throw new SessionError(message, { reason, retry: RETRY_REASONS.includes(reason), retryAfterMs: RETRY_MS });
    }
  }

  async release() {
    const media = this.#media;
    this.#media = null;
    if (!media) return;
    // Gone already, or the signalling is: the gateway ends it by itself.
    await this.signalling.request('media.close', { media }).catch(() => {});
  }
}

export class RoomMedia {
  #players = new Map();
  #publisher = null;
  #isClosed = false;

  /**
   * @param {object} options
   * @param {Promise<{stream: MediaStream}>} options.source  what to send; a rejected one sends nothing
   * @param {HTMLElement} options.tiles  where the members are shown
   * @param {() => void} options.onMuted  the browser wants a click before it plays sound
   * @param {(text: string) => void} options.onError
   */
  constructor({ signalling, room, source, tiles, onMuted, onError }) {
    Object.assign(this, { signalling, room, tiles, onMuted, onError });
    source?.then(({ stream }) => this.#publish(stream), () => {});
  }

  /** Brings the tiles in line with the members, who are as PROTOCOL.md has them, by id. */
  show(members) {
    for (const [id, { player, tile }] of this.#players) {
      if (members.has(id)) continue;
      player.close();
      tile.remove();
      this.#players.delete(id);
    }
    for (const [id, member] of members) {
      if (!this.#players.has(id)) this.#players.set(id, this.#subscribe(member));
      const { tile } = this.#players.get(id);
      const isSilent = member.muted_audio || !member.audio;
      tile.dataset.picture = member.video && !member.muted_video && tile.dataset.shown === 'yes' ? 'yes' : 'no';
      tile.dataset.video = member.video && !member.muted_video ? 'yes' : 'no';
      const label = tile.querySelector('.tile-label');
      label.textContent = isSilent && member.muted_audio ? `${member.name} · muted` : member.name;
      label.toggleAttribute('data-alert', isSilent && member.muted_audio);
    }
    const count = this.#players.size;
    this.tiles.dataset.count = count;
    const columns = innerWidth > innerHeight ? Math.ceil(Math.sqrt(count)) : Math.min(count, count > 2 ? 2 : 1);
    this.tiles.style.setProperty('--columns', String(Math.max(1, columns)));
  }

  unmute() {
    for (const { player } of this.#players.values()) player.unmute();
  }

  async stats() {
    const members = [...this.#players].map(async ([id, { player, tile }]) => ({
      member: id, name: tile.dataset.name, ...await player.stats(),
    }));
    return { publisher: await this.#publisher?.stats(), members: await Promise.all(members) };
  }

  close() {
    this.#isClosed = true;
    this.#publisher?.close();
    for (const { player } of this.#players.values()) player.close();
    this.#players.clear();
    this.tiles.replaceChildren();
  }

  #publish(stream) {
    if (this.#isClosed) return;
    const exchange = new RoomExchange(this.signalling, 'publish', { room: this.room });
    this.#publisher = new WhipPublisher(exchange, { stream, videoBitrateBps: VIDEO_BITRATE_BPS });
    this.#publisher.connect().catch((error) => this.#isClosed || this.onError(error.message));
  }

  #subscribe(member) {
    const video = Object.assign(document.createElement('video'), { playsInline: true, autoplay: true });
    const initial = Object.assign(document.createElement('span'), { className: 'initial', textContent: [...member.name][0] ?? '?' });
    const label = Object.assign(document.createElement('span'), { className: 'tile-label' });
    const tile = Object.assign(document.createElement('div'), { className: 'tile' });
    tile.append(video, initial, label);
    Object.assign(tile.dataset, { name: member.name, user: member.user, testid: `tile-${member.user}` });
    this.tiles.append(tile);
    const exchange = new RoomExchange(this.signalling, 'subscribe', { room: this.room, member: member.member });
    const player = new WhepPlayer(exchange, { video });
    player.addEventListener('muted', () => this.onMuted());
    player.addEventListener('firstpicture', () => {
      tile.dataset.shown = 'yes';
      if (tile.dataset.video === 'yes') tile.dataset.picture = 'yes';
    });
    player.connect().catch(() => {
      // It left, or this side did; a lost connection is tried again by the player.
    });
    return { player, tile };
  }
}

/** What a face needs; the mini-program's side decodes it on a phone. */
const VIDEO_BITRATE_BPS = 1_200_000;
/** Refusals that go away: the member has not begun to send. */
const RETRY_REASONS = ['not_published', 'draining'];
const RETRY_MS = 500;
