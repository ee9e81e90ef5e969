// A socket for Signalling over wx.connectSocket.

/** @param {string} url  wss://..., of a domain registered as "socket" domain of the mini-program */
export function wxSocket(url) {
  return (on) => {
    let isOver = false;
    const over = () => {
      if (isOver) return;
      isOver = true;
      on.close();
    };
    const task = wx.connectSocket({ url, fail: over });
    task.onOpen(() => on.open());
    task.onMessage(({ data }) => on.message(data));
    // An error is not always followed by a close, and a close not always preceded by an error.
    task.onError(over);
    task.onClose(over);
    return {
      send(text) {
        task.send({ data: text, fail: over });
      },
      close() {
        isOver = true;
        // Five sockets at most may be open: a dead one must be given back.
        task.close({ code: 1000 });
      },
    };
  };
}
