// Answers each message with a digest of all so far, and sends ticks of its own in between.
const { createHash } = require('crypto')
const { WebSocketServer } = require('ws')

new WebSocketServer({ port: 7000 }).on('connection', (socket) => {
  let chain = ''
  let ticks = 0
  setInterval(() => socket.send(`tick ${++ticks}`), 20)
  socket.on('message', (text) => {
    chain = createHash('sha256').update(chain + text).digest('hex')
    socket.send(`chain ${chain}`)
  })
})
