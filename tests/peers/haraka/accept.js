// Takes every recipient, and counts the client among those whose mail is sent on, so that Haraka's own queue takes the message. The client's name
// is known, as from a DNS server nearby.
exports.hook_lookup_rdns = (next) => next(OK, 'localhost')
exports.hook_connect = (next, connection) => {
    connection.relaying = true
    next()
}
exports.hook_rcpt = (next) => next(OK)
