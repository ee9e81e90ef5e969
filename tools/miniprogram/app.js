import { SIGNALLING_URL } from './config.js';
import { Conversation } from './lib/conversation.js';
import { Signalling } from './lib/signalling.js';
import { wxSocket } from './lib/socket.js';

App({
  globalData: { signalling: null, conversation: null },

  /** Signs in; `token` is what your own server gave this user, or '' where the gateway lets anonymous users in. */
  signIn({ user, token }) {
    this.signOut();
    const signalling = new Signalling({
      open: wxSocket(SIGNALLING_URL), kind: 'rtmp', token: token || undefined, user: user || undefined,
    });
    const conversation = new Conversation(signalling);
    let shown = 'free';
    conversation.onChange(({ state }) => {
      // The call page shows itself when something begins and goes when it is over.
      if (state !== 'free' && shown === 'free') wx.navigateTo({ url: '/pages/call/call' });
      shown = state;
    });
    Object.assign(this.globalData, { signalling, conversation });
    signalling.start();
    return conversation;
  },

  signOut() {
    this.globalData.conversation?.hangup().catch(() => {});
    this.globalData.signalling?.stop();
    Object.assign(this.globalData, { signalling: null, conversation: null });
  },

  // In the background WeChat takes the socket away after some seconds while the tags' media goes on; the
  // gateway keeps the session meanwhile.
  onShow() {
    this.globalData.signalling?.wake();
  },

  onLaunch() {
    wx.onNetworkStatusChange(({ isConnected }) => {
      if (isConnected) this.globalData.signalling?.wake();
    });
  },
});
