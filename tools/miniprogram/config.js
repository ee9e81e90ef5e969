// Where the gateway is. Register the domain under "socket domain name" in the mini-program's console; the RTMP
// URLs that the gateway hands out need no registration.
export const SIGNALLING_URL = 'wss://gateway.example/ws';
