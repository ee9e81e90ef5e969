const app = getApp();

Page({
  data: { isSignedIn: false, isOnline: false, user: '', token: '', name: '', status: '', users: [], room: '', ended: '' },

  onLoad() {
    this.setData({ user: wx.getStorageSync('user') || '' });
  },

  onUser({ detail }) { this.setData({ user: detail.value.trim() }); },
  onToken({ detail }) { this.setData({ token: detail.value.trim() }); },
  onRoom({ detail }) { this.setData({ room: detail.value.trim() }); },

  signIn() {
    const { user, token } = this.data;
    wx.setStorageSync('user', user);
    const conversation = app.signIn({ user, token });
    const { signalling } = app.globalData;
    signalling.on('state', ({ state, error }) => {
      const words = { connecting: 'connecting...', online: 'online', waiting: 'no connection, trying again', failed: error?.message ?? '' };
      this.setData({ isOnline: state === 'online', status: words[state] ?? '', name: signalling.name || user });
      if (state === 'failed') wx.showModal({ title: 'Could not sign in', content: error.message, showCancel: false });
    });
    conversation.onChange(({ users, ended }) => {
      const others = [...users.values()].filter((other) => other.user !== signalling.user);
      this.setData({ users: others, ended: ended ? ended.text : '' });
    });
    this.setData({ isSignedIn: true, status: 'connecting...', name: user });
  },

  signOut() {
    app.signOut();
    this.setData({ isSignedIn: false, isOnline: false, users: [], ended: '' });
  },

  // What comes of it is told by the conversation: also a refusal.
  call({ currentTarget }) { app.globalData.conversation.invite(currentTarget.dataset.user).catch(() => {}); },
  join() { app.globalData.conversation.join(this.data.room).catch(() => {}); },
});
