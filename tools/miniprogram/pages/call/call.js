import { Renewal, playerVerdict, pusherVerdict } from '../../lib/media.js';

const app = getApp();

Page({
  data: {
    state: 'free', title: '', note: '', players: [], pushUrl: '', withCamera: true, isMicrophoneOff: false,
    camera: 'front', pusherNote: '',
  },

  onLoad() {
    const { conversation } = app.globalData;
    if (!conversation) {
      wx.navigateBack();
      return;
    }
    this.renewal = new Renewal();
    this.notes = new Map();
    conversation.onChange(() => this.isGone || this.show(conversation));
    this.show(conversation);
    wx.setKeepScreenOn({ keepScreenOn: true });
  },

  onUnload() {
    this.isGone = true;
    clearTimeout(this.renewTimer);
    wx.setKeepScreenOn({ keepScreenOn: false });
    // Leaving by the phone's own gesture is hanging up.
    app.globalData.conversation?.hangup().catch(() => {});
  },

  show(conversation) {
    const { state, call, room, joining, members, push } = conversation;
    if (state === 'free') {
      wx.navigateBack();
      return;
    }
    const players = [...members.values()].map((member) => ({
      member: member.member,
      name: member.name,
      video: member.video,
      isMuted: member.muted_audio,
      note: this.notes.get(member.member) ?? '',
      url: member.play.url,
    }));
    const name = call?.other.name ?? room ?? joining;
    const notes = { ringing: 'is calling you', inviting: call?.isRinging ? 'ringing...' : 'calling...', joining: 'joining...', talking: 'connecting...' };
    this.setData({
      state, players, title: name, note: notes[state], pushUrl: push?.url ?? '', withCamera: call?.video ?? true,
    });
  },

  accept() { app.globalData.conversation.accept().catch(() => {}); },
  hangup() { app.globalData.conversation.hangup().catch(() => {}); },

  toggleMicrophone() {
    const isMicrophoneOff = !this.data.isMicrophoneOff;
    this.setData({ isMicrophoneOff });
    app.globalData.conversation.mute({ audio: isMicrophoneOff, video: false }).catch(() => {});
  },

  turnCamera() {
    wx.createLivePusherContext().switchCamera({
      success: () => this.setData({ camera: this.data.camera === 'front' ? 'back' : 'front' }),
    });
  },

  onPusher({ detail }) {
    const verdict = pusherVerdict(detail.code);
    if (!verdict) return;
    this.setData({ pusherNote: verdict.text });
    if (verdict.state === 'live') this.renewal.succeeded();
    if (verdict.state === 'renew') this.renew();
  },

  onPusherError({ detail }) {
    this.onPusher({ detail: { code: detail.errCode } });
  },

  onPlayer({ detail, currentTarget }) {
    const verdict = playerVerdict(detail.code);
    if (!verdict) return;
    this.notes.set(currentTarget.dataset.member, verdict.text);
    if (verdict.state === 'renew') this.renew();
    else this.show(app.globalData.conversation);
  },

  /** Fresh URLs. A tag with a new URL is made anew, which is what starts it again. */
  renew() {
    if (this.renewTimer) return;
    this.renewTimer = setTimeout(async () => {
      this.renewTimer = null;
      try {
        await app.globalData.conversation?.renewUrls();
      } catch {
        // Without a connection there are no URLs; the tags' next codes lead here again.
        this.renew();
      }
    }, this.renewal.next());
  },
});
