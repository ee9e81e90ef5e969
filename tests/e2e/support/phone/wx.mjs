// As much of WeChat's `wx` as the mini-program's signalling uses, over the package ws. `NODE_PATH` says where
// that is (/usr/share/nodejs for Debian's node-ws).

import { createRequire } from 'node:module';

const WebSocket = createRequire(import.meta.url)('ws');

/** What WeChat allows at once. */
const SOCKETS_MAX = 5;

/** A phone's `wx`. `isAway` is the app in the background, where WeChat takes its sockets away. */
export class Wx {
  #sockets = new Set();
  isAway = false;

  connectSocket({ url, fail }) {
    if (this.isAway || this.#sockets.size >= SOCKETS_MAX) {
      setTimeout(() => fail({ errMsg: this.isAway ? 'fail interrupted' : 'fail exceed max task count' }));
      return new SocketTask(null, this.#sockets);
    }
    // No Origin, as WeChat's is none that a server could know.
    return new SocketTask(new WebSocket(url), this.#sockets);
  }

  /** The app goes to the background; with `isSudden` as when the network is gone: without a close frame. */
  goAway(isSudden = false) {
    this.isAway = true;
    for (const socket of this.#sockets) isSudden ? socket.terminate() : socket.close();
  }

  comeBack() {
    this.isAway = false;
  }
}

class SocketTask {
  #socket;

  constructor(socket, all) {
    this.#socket = socket;
    if (!socket) return;
    all.add(socket);
    socket.on('close', () => all.delete(socket));
    // An error without a listener would end the process.
    socket.on('error', () => {});
  }

  onOpen(listener) { this.#socket?.on('open', () => listener({})); }
  onMessage(listener) { this.#socket?.on('message', (data) => listener({ data: data.toString() })); }
  onError(listener) { this.#socket?.on('error', ({ message }) => listener({ errMsg: message })); }
  onClose(listener) { this.#socket?.on('close', (code, reason) => listener({ code, reason: reason.toString() })); }

  send({ data, fail }) {
    if (this.#socket?.readyState !== WebSocket.OPEN) {
      fail({ errMsg: 'sendSocketMessage:fail' });
      return;
    }
    this.#socket.send(data);
  }

  close({ code }) { this.#socket?.close(code); }
}
