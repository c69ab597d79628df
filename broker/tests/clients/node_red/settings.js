// Node-RED without its editor, with passwords as they are written.
module.exports = {
  flowFile: "flows.json",
  credentialSecret: false,
  httpAdminRoot: false,
  httpNodeRoot: false,
  mqttReconnectTime: 200,
};
