// How one stream does, from its publisher to each player: what is wrong and the cure, the
// figures, and all of it as JSON for a bug report. Asked for only while it is open and seen.

import { bits, bytes, duration, hertz, milliseconds, percent, seconds } from './format.js';
import { copy, element, setIcon, setText } from './parts.js';

const $ = (id) => document.getElementById(id);
const panel = $('health');

export class HealthPanel {
  /** The stream it tells about, or null while it is closed. */
  name = null;
  #options;
  #opener = null;
  #timer;
  #asking = null;
  /** The newest answer. */
  #answer = null;

  /** @param options { token(), onchange() }: the second is called when it opens or closes. */
  constructor(options) {
    this.#options = options;
    $('health-close').addEventListener('click', () => this.close());
    $('health-copy').addEventListener('click', () => this.#copy());
    panel.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this.close();
    });
    document.addEventListener('visibilitychange', () => this.#ask());
  }

  toggle(name, opener) {
    if (this.name === name) this.close();
    else this.open(name, opener);
  }

  /** Whoever opened it by hand is taken to it, and back when it closes. */
  open(name, opener = null) {
    this.name = name;
    this.#opener = opener;
    this.#answer = null;
    setText($('health-title'), `Health of ${name}`);
    this.#show('asking', 'Asking the gateway…');
    panel.hidden = false;
    if (opener) $('health-title').focus();
    this.#options.onchange();
    this.#asking?.abort();
    this.#ask();
  }

  close() {
    if (!this.name) return;
    const hadFocus = panel.contains(document.activeElement);
    this.name = null;
    panel.hidden = true;
    clearTimeout(this.#timer);
    this.#asking?.abort();
    if (hadFocus) this.#opener?.focus();
    this.#options.onchange();
  }

  async #ask() {
    clearTimeout(this.#timer);
    const { name } = this;
    if (!name || document.hidden) return;
    const asking = new AbortController();
    this.#asking?.abort();
    this.#asking = asking;
    const late = setTimeout(() => asking.abort('late'), 5000);
    try {
      const token = this.#options.token();
      const headers = token ? { Authorization: `Bearer ${token}` } : {};
      const path = name.split('/').map(encodeURIComponent).join('/');
      const response = await fetch(`/api/v1/streams/${path}`, { headers, signal: asking.signal });
      const answer = response.ok ? await response.json() : null;
      if (asking.signal.aborted) return;
      if (answer) this.#tell(answer);
      else this.#answerless(response.status);
    } catch {
      if (asking.signal.aborted && asking.signal.reason !== 'late') return;
      this.#show('lost', this.#answer ? 'The gateway does not answer: these figures are old.' : 'The gateway does not answer.');
    } finally {
      clearTimeout(late);
    }
    if (this.name === name && !document.hidden) this.#timer = setTimeout(() => this.#ask(), POLL_MS);
  }

  #tell(stream) {
    this.#answer = stream;
    const { warnings = [] } = stream;
    // No right to see who plays: the figures are there, the players are counted.
    const note = stream.player_list ? '' : 'Addresses and single players are shown only to tokens with the right “api”.';
    this.#show(warnings.length ? 'warned' : stream.publisher ? 'well' : 'absent', note);
    showWarnings(warnings);
    showSections(stream);
    showPlayers(stream);
  }

  #answerless(status) {
    this.#answer = null;
    const said = {
      401: 'The gateway shows this only to tokens with the right “api”, or with “play” for this stream. Put yours in the Token field under Publish.',
      403: 'This token may not see this stream: it needs the right “api”, or “play” for this stream.',
      404: `Nobody publishes ${this.name} and nobody waits for it, or this token may not see it.`,
    }[status];
    this.#show('closed', said ?? `The gateway answers with status ${status}.`);
  }

  #show(state, note) {
    panel.dataset.state = state;
    const count = this.#answer?.warnings?.length ?? 0;
    const [text, kind] = {
      warned: [count === 1 ? '1 warning' : `${count} warnings`, 'warn'],
      well: ['all well', 'good'],
      absent: ['no publisher', ''],
      asking: ['asking…', ''],
      closed: ['no figures', ''],
      lost: ['no answer', 'bad'],
    }[state];
    setText($('health-verdict'), text);
    $('health-verdict').className = `pill ${kind}`;
    setText($('health-note'), note);
    $('health-note').hidden = !note;
    $('health-copy').disabled = !this.#answer;
    for (const id of ['health-warnings', 'health-figures', 'health-players']) $(id).hidden = !this.#answer;
  }

  async #copy() {
    const button = $('health-copy');
    const isCopied = this.#answer && await copy(JSON.stringify(this.#answer, null, 2));
    setIcon(button, isCopied ? 'done' : 'copy');
    setText(button.lastChild, isCopied ? 'Copied' : 'Cannot copy');
    setTimeout(() => {
      setIcon(button, 'copy');
      setText(button.lastChild, 'Copy as JSON');
    }, 1500);
  }
}

// ---- What is wrong -----------------------------------------------------------------

function showWarnings(warnings) {
  const list = $('health-warnings');
  list.hidden = warnings.length === 0;
  const known = warnings.map(({ code, text }) => `${code} ${text}`).join('\n');
  // Unchanged ones are left alone: they are read aloud when they change.
  if (list.dataset.known === known) return;
  list.dataset.known = known;
  list.replaceChildren(...warnings.map(({ code, text }) => {
    const at = text.indexOf(': ');
    const [what, cure] = at < 0 ? [text, ''] : [`${text.slice(0, at)}.`, text.slice(at + 2)];
    const item = element('li', {},
      element('strong', { textContent: what }), ' ',
      cure && element('span', { textContent: cure[0].toUpperCase() + cure.slice(1) }), ' ',
      element('code', { textContent: code }));
    item.dataset.testid = 'health-warning';
    return item;
  }));
}

// ---- The figures -------------------------------------------------------------------

/** Groups of [key, label, value, explanation, isBad]; a null value is left out. */
function sections(stream) {
  const { publisher, tracks = [], transcode = {}, held = {}, cache = {} } = stream;
  const picture = tracks.find(({ kind }) => kind === 'video');
  const sound = tracks.find(({ kind }) => kind === 'audio');
  const rtp = publisher?.ingest?.rtp;
  const ingest = publisher?.ingest;
  const warned = new Set((stream.warnings ?? []).map(({ code }) => code));
  const converting = transcode.aac_to_opus ? 'AAC → Opus' : transcode.opus_to_aac ? 'Opus → AAC' : null;
  const faults = ingest && ingest.malformed + ingest.timestamp_jumps;
  return [
    ['Picture', picture ? [
      ['size', 'Size', picture.width ? `${picture.width}×${picture.height}` : 'unknown', `H.264 ${picture.profile} ${picture.level}`, warned.has('no_size')],
      ['fps', 'Frame rate', `${picture.fps.toFixed(1)} fps`],
      ['video-bitrate', 'Bit rate', bits(picture.bitrate_bps)],
      ['gop', 'Key frame every', picture.gop_ms == null ? 'not known yet' : seconds(picture.gop_ms), 'GOP: what one who joins catches up with', warned.has('rare_key_frames')],
      ['since-key', 'Last key frame', picture.since_key_ms == null ? 'none yet' : ago(picture.since_key_ms), `${picture.key_frames} so far`, warned.has('no_key_frame')],
      ['b-frames', 'B-frames', picture.b_frames ? String(picture.b_frames) : 'none', picture.b_frames ? `${picture.b_frames_dropped} left out for browsers` : 'as browsers need it', picture.b_frames > 0],
    ] : [['size', 'Picture', 'none', 'No picture is sent']]],
    ['Sound', [
      ...(sound ? [
        ['audio-codec', 'Codec', sound.codec, [hertz(sound.sample_rate_hz), { 1: 'mono', 2: 'stereo' }[sound.channels]].filter(Boolean).join(', ')],
        ['audio-bitrate', 'Bit rate', bits(sound.bitrate_bps)],
      ] : [['audio-codec', 'Sound', 'none', 'No sound is sent']]),
      ['transcode', 'Transcoding', converting ?? 'not needed', converting && bits(transcode.bitrate_bps)],
      ['transcode-queue', 'Transcode queue', converting && counted(transcode.queue, 'frame'), `${span(held.transcode_ms)} of sound`, warned.has('transcode_late')],
    ]],
    ['Publisher', publisher ? [
      ['protocol', 'Comes by', { rtmp: 'RTMP', whip: 'WHIP' }[publisher.protocol] ?? publisher.protocol, publisher.client],
      ['user', 'User', publisher.user ?? null],
      ['uptime', 'On air for', duration(publisher.uptime_s), `last media ${ago(publisher.silent_ms)}`, warned.has('silent')],
      ['faults', 'Faults', faults == null ? null : faults ? `${faults}` : 'none', faults == null ? '' : `${counted(ingest.timestamp_jumps, 'timestamp jump')}, ${ingest.malformed} malformed`, faults > 0],
      ['up-frames', 'Pictures lost', rtp ? `${rtp.frames_dropped}` : null, rtp && `of ${rtp.frames + rtp.frames_dropped}, in ${counted(rtp.holes, 'hole')}`, warned.has('uplink_loss')],
      ['up-sound', 'Sound lost', rtp ? counted(rtp.audio_packets_lost, 'packet') : null],
      ['up-path', 'Round trip', rtp?.round_trip_ms == null ? null : milliseconds(rtp.round_trip_ms), rtp && `waits ${rtp.picture_wait_ms} ms for a lost picture, ${rtp.sound_wait_ms} ms for sound`],
    ] : [['protocol', 'Publisher', 'none', 'Players wait for it']]],
    ['Clocks and delay', [
      ['skew', 'Picture ahead of sound', rtp ? signed(rtp.skew_ms) ?? 'not known yet' : null, rtp && `moved so far: picture ${signed(rtp.video_correction_ms)}, sound ${signed(rtp.audio_correction_ms)}`],
      ['reports', 'Absurd reports', rtp?.absurd_sender_reports ? String(rtp.absurd_sender_reports) : null, 'sender reports not believed', true],
      ['clock-offset', 'Clock offset', converting ? signed(transcode.offset_ms) : null, `timestamps ahead of samples; corrected ${signed(transcode.correction_ms ?? 0)}`],
      ['held-ingest', 'Waits for packets', span(held.ingest_ms), 'lost on the way in'],
      ['held-players', 'Slowest player', span(held.players_ms), 'behind the newest picture', warned.has('player_late')],
      ['cache', 'Kept for joiners', bytes(cache.gop_bytes ?? 0), `${seconds(cache.gop_ms ?? 0)} of pictures`],
    ]],
  ];
}

function showSections(stream) {
  const box = $('health-figures');
  for (const [title, figures] of sections(stream)) {
    let section = [...box.children].find((child) => child.dataset.title === title);
    if (!section) {
      section = element('section', {}, element('h3', { textContent: title }), element('dl'));
      section.dataset.title = title;
      box.append(section);
    }
    const list = section.lastChild;
    const shown = figures.filter(([, , value]) => value != null);
    const keys = shown.map(([key]) => key).join();
    // Rows come and go with what is published; while they stay, only their text changes.
    if (list.dataset.keys !== keys) {
      list.dataset.keys = keys;
      list.replaceChildren(...shown.map(([key, label]) => {
        const value = element('dd', {}, element('span'), element('small'));
        const row = element('div', {}, element('dt', { textContent: label }), value);
        row.dataset.testid = `health-${key}`;
        return row;
      }));
    }
    shown.forEach(([, , value, explanation, isBad = false], index) => {
      const row = list.children[index];
      setText(row.lastChild.firstChild, value);
      setText(row.lastChild.lastChild, explanation || '');
      row.classList.toggle('bad', Boolean(isBad));
    });
  }
}

// ---- The players -------------------------------------------------------------------

function showPlayers({ player_list: players, players: counts = {} }) {
  const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const byProtocol = Object.entries(counts).filter(([, count]) => count > 0)
    .map(([protocol, count]) => `${count} by ${protocol.toUpperCase()}`).join(', ');
  setText($('health-players-title'), total === 0 ? 'Nobody watches' : `Players: ${byProtocol}`);
  const table = $('health-players-table');
  table.hidden = !players?.length;
  // The worst come first, and are enough to see what is wrong.
  const worst = [...players ?? []].sort((a, b) => b.lag_ms - a.lag_ms).slice(0, PLAYERS_MAX);
  const more = (players?.length ?? 0) - worst.length;
  setText($('health-more'), more > 0 ? `${more} more, all less far behind, are in the JSON.` : '');
  const rows = table.tBodies[0].rows;
  while (rows.length > worst.length) rows[rows.length - 1].remove();
  worst.forEach((player, index) => {
    const row = rows[index] ?? table.tBodies[0].insertRow();
    playerFigures(player).forEach(([label, value, isBad = false], column) => {
      const cell = row.cells[column] ?? row.insertCell();
      cell.dataset.label = label;
      setText(cell, value);
      cell.classList.toggle('bad', isBad);
    });
  });
}

function playerFigures({ path, ...player }) {
  const gets = path?.gets ?? 'all';
  const budget = path?.budget_bps ? ` (${bits(path.budget_bps)})` : '';
  return [
    ['Player', `${{ rtmp: 'RTMP', whep: 'WHEP' }[player.protocol] ?? player.protocol} ${player.client}`],
    ['For', duration(player.uptime_s)],
    ['Behind', span(player.lag_ms), player.lag_ms > LAG_BAD_MS],
    ['Gets', `${GETS[gets] ?? gets}${budget}`, gets !== 'all'],
    ['Skips', String(player.skips), player.skips > 0],
    ['Round trip', milliseconds(player.round_trip_ms) ?? '–'],
    ['Loss', percent(path?.loss_percent) ?? '–', path?.loss_percent > LOSS_BAD_PERCENT],
    ['Waiting', player.queued_bytes == null ? '–' : bytes(player.queued_bytes)],
  ];
}

// ---- Words -------------------------------------------------------------------------

const ago = (millis) => (millis < 1000 ? 'just now' : `${duration(millis / 1000)} ago`);
/** Whole milliseconds, or seconds of what takes long. */
const span = (millis) => (millis < 10_000 ? `${millis} ms` : seconds(millis));
const counted = (count, word) => `${count} ${word}${count === 1 ? '' : 's'}`;

/** "+12 ms", or null. */
function signed(millis) {
  if (millis == null) return null;
  return `${millis > 0 ? '+' : millis < 0 ? '−' : ''}${Number(Math.abs(millis).toFixed(1))} ms`;
}

const POLL_MS = 2000;
const PLAYERS_MAX = 50;
const LAG_BAD_MS = 2000;
const LOSS_BAD_PERCENT = 2;
const GETS = { all: 'everything', thinned: 'fewer pictures', sound: 'sound only', nothing: 'nothing' };
