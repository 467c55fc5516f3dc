use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use FakeDNS;

BEGIN {
    FakeDNS::serve(
        'mail.good.example A' => '192.0.2.25', 'good.example MX' => '10 mail.good.example.', 'good.example A' => '192.0.2.25',
        'bad.example MX' => '10 mail.bad.example.', 'mail.bad.example A' => '127.0.0.1',
        'spam.example.rhsbl.example TXT' => '"listed, go away"', 'tempfail.example TXT' => '"x"',
        'forged.example TXT' => '"v=spf1 ip4:192.0.2.99 -all"', 'good.example TXT' => '"v=spf1 ip4:192.0.2.1 -all"',
        'soft.example TXT' => '"v=spf1 ~all"',
    );
}

use Test::More;
use QpsmtpdPackage;
use Qpsmtpd::Constants;

# Plugins of Debian's package that judge sender and recipients: the hit and the miss of each.

sub rcpt { my ($test, $address) = @_; return $test->hook(rcpt => address => $address) }
sub mail { my ($test, $address) = @_; return $test->hook(mail => address => $address) }

for my $name (qw(badmailfrom check_badmailfrom)) {
    my $test = plugin($name, config => {badmailfrom => ['@spam.example we have had enough', 'eve@client.example', '^bulk-.*']});
    is mail($test, 'bob@spam.example')->reply, 'we have had enough', "$name: a domain";
    is mail($test, 'bulk-7@client.example')->rc, DENY, "$name: a pattern";
    is mail($test, 'bob@client.example')->rc, DECLINED, "$name: others";
    is plugin($name, connection => {relay_client => 1}, config => {badmailfrom => ['@spam.example']})
        ->hook(mail => address => 'bob@spam.example')->rc, DECLINED, "$name: our own";
}
{
    my $test = plugin('badmailfrom', args => [reject => 'naughty'], more => ['naughty'], config => {badmailfrom => ['@spam.example']});
    is mail($test, 'bob@spam.example')->rc, DECLINED, 'badmailfrom: kept for naughty';
    is $test->results(rcpt => address => 'x@example.org')->[-1]->rc, DENY_DISCONNECT, 'naughty: a client with a record';
    is plugin('naughty')->hook(rcpt => address => 'x@example.org')->rc, DECLINED, 'naughty: others';
}
{
    my $test = plugin('badmailfromto', config => {badmailfromto => ["eve\@client.example\tbob\@example.org"]});
    mail($test, 'eve@client.example');
    like rcpt($test, 'bob@example.org')->reply, qr/not accepted here/, 'badmailfromto: a pair';
    is rcpt($test, 'amy@example.org')->rc, DECLINED, 'badmailfromto: another recipient';
}
for my $name (qw(badrcptto check_badrcptto)) {
    my $test = plugin($name, config => {badrcptto => ['old@example.org', '@gone.example moved away']});
    is rcpt($test, 'old@example.org')->reply, 'mail to old@example.org not accepted here (#5.1.1)', "$name: an address";
    is rcpt($test, 'x@gone.example')->rc, DENY, "$name: a domain";
    is rcpt($test, 'bob@example.org')->rc, DECLINED, "$name: others";
}
{
    my $test = plugin('rcpt_ok', config => {rcpthosts => ['example.org', '.wide.example'], me => ['mx.example.org']});
    is rcpt($test, 'bob@example.org')->rc, OK, 'rcpt_ok: ours';
    is rcpt($test, 'bob@sub.wide.example')->rc, OK, 'rcpt_ok: below ours';
    is rcpt($test, 'bob@other.example')->reply, 'Relaying denied (#5.7.1)', 'rcpt_ok: others';
    is plugin('rcpt_ok', connection => {relay_client => 1})->hook(rcpt => address => 'x@other.example')->rc, OK, 'rcpt_ok: who may relay';
}
{
    my $map = file('map', "bob\@example.org OK ours\namy\@example.org DENYSOFT not_today\n");
    my $test = plugin('rcpt_map', args => [domain => 'example.org', file => $map, default => 'DENY=nobody_here']);
    is rcpt($test, 'bob@example.org')->rc, OK, 'rcpt_map: listed';
    is rcpt($test, 'amy@example.org')->rc, DENYSOFT, 'rcpt_map: listed as refused';
    is rcpt($test, 'eve@example.org')->reply, 'nobody here', 'rcpt_map: the default';
    is rcpt($test, 'eve@other.example')->rc, DECLINED, 'rcpt_map: another domain';
}
{
    my $test = plugin('rcpt_regexp', config => {rcpt_regexp => ['/^x.*@example\.org$/ DENY none of those', 'bob@example.org OK ours']});
    is rcpt($test, 'x1@example.org')->reply, 'none of those', 'rcpt_regexp: a pattern';
    is rcpt($test, 'bob@example.org')->rc, OK, 'rcpt_regexp: an address';
    is rcpt($test, 'amy@example.org')->rc, DECLINED, 'rcpt_regexp: others';
}
for my $name (qw(relay check_relay)) {
    my $test = plugin($name, connection => {remote_ip => '192.0.2.7'}, config => {relayclients => ['192.0.2.', '198.51.100.0/24']});
    $test->hook('connect');
    is $test->connection->relay_client, 1, "$name: by prefix";
    $test = plugin($name, connection => {remote_ip => '203.0.113.1'}, config => {relayclients => ['192.0.2.']});
    $test->hook('connect');
    is $test->connection->relay_client, 0, "$name: others";
    local $ENV{RELAYCLIENT} = 1;
    $test = plugin($name, connection => {remote_ip => '203.0.113.1'});
    $test->hook('connect');
    is $test->connection->relay_client, 1, "$name: by the environment";
}
if (has('NetAddr::IP')) {
    my $test = plugin('whitelist', connection => {remote_ip => '192.0.2.7'}, config => {
        whitelisthosts => ['192.0.2.7'], whitelistsenders => ['friend@client.example'], whitelistrcpt => ['abuse@example.org'],
        whitelisthelo => ['good.example'],
    });
    is $test->hook('connect')->rc, OK, 'whitelist: a host';
    ok $test->connection->notes('whitelisthost'), 'whitelist: noted';
    is mail($test, 'friend@client.example')->rc, OK, 'whitelist: a sender';
    is mail($test, 'eve@client.example')->rc, DECLINED, 'whitelist: another sender';
    is rcpt($test, 'abuse@example.org')->rc, OK, 'whitelist: a recipient';
    is rcpt($test, 'bob@example.org')->rc, DECLINED, 'whitelist: another recipient';
    is $test->hook(ehlo => host => 'good.example')->rc, OK, 'whitelist: a greeting';
    is plugin('whitelist', config => {whitelisthosts => ['198.51.100.1']})->hook('connect')->rc, DECLINED, 'whitelist: another host';
}
{
    my $sender = sub {
        mail(plugin('resolvable_fromhost', args => [reject_type => 'perm'], config => {invalid_resolvable_fromhost => ['127.0.0.0/8']}), $_[0]);
    };
    is $sender->('a@good.example')->rc, DECLINED, 'resolvable_fromhost: it resolves';
    is $sender->('')->rc, DECLINED, 'resolvable_fromhost: a null sender';
    is $sender->('a@nowhere.example')->rc, DENY, 'resolvable_fromhost: it does not';
    is $sender->('a@bad.example')->rc, DENY, 'resolvable_fromhost: to an invalid address';
    is $sender->('nodomain')->reply, 'FQDN required in the envelope sender (#5.1.8)', 'resolvable_fromhost: no domain';
}
{
    my $test = plugin('rhsbl', config => {rhsbl_zones => ['rhsbl.example']});
    like mail($test, 'a@spam.example')->reply, qr/listed, go away/, 'rhsbl: listed';
    is mail($test, 'a@good.example')->rc, DECLINED, 'rhsbl: not listed';
}
if (has('Net::IP')) {
    my $test = plugin('greylisting', args => [db_dir => "$WORK"]);
    my $result = mail($test, 'a@client.example');
    is $result->rc, DECLINED;
    like $result->message, qr/\Adied: .*is_p0f_match/, 'greylisting: calls a method that the file does not have, in 0.94, for every sender';
}
{
    my $test = plugin('dont_require_anglebrackets');
    is_deeply $test->hook(mail_pre => line => 'bob@example.org')->values, ['<bob@example.org>'], 'dont_require_anglebrackets: without';
    is_deeply $test->hook(rcpt_pre => line => '<bob@example.org>')->values, ['<bob@example.org>'], 'dont_require_anglebrackets: with';
}
{
    my $test = plugin('parse_addr_withhelo', connection => {hello => 'HELO'});
    is_deeply $test->hook(mail_parse => line => 'FROM:<a@b.example>')->values, ['FROM:<a@b.example>'], 'parse_addr_withhelo: plain';
    my $result = $test->hook(mail_parse => line => 'FROM:<a@b.example> SIZE=10');
    is_deeply [$result->code, $result->reply], [501, 'No parameters allowed in MAIL'], 'parse_addr_withhelo: with parameters';
    is plugin('parse_addr_withhelo', connection => {hello => 'EHLO'})->hook(mail_parse => line => 'FROM:<a@b.example> SIZE=10')->rc,
        DECLINED, 'parse_addr_withhelo: after EHLO';
}
if (has('Mail::SPF')) {
    my %about = (args => [reject => 3], connection => {remote_ip => '192.0.2.1', hello => 'EHLO', hello_host => 'client.example'});
    my $test = plugin('sender_permitted_from', %about);
    like mail($test, 'a@forged.example')->reply, qr/^SPF - forgery/, 'sender_permitted_from: forged';
    $test = plugin('sender_permitted_from', %about, message => "Subject: x\n\ny\n");
    is mail($test, 'a@good.example')->rc, DECLINED, 'sender_permitted_from: permitted';
    is $test->connection->notes('authentication_results') // '', 'spf=pass smtp.mailfrom=good.example', 'sender_permitted_from: says so';
    my ($header) = grep { $_->{op} eq 'add_header' } @{$test->hook('data_post')->changes};
    is $header->{name}, 'Received-SPF', 'sender_permitted_from: a header, by an object in a note';
    like $header->{value}, qr/^(?:Received-SPF: )?pass/;
}

done_testing;
