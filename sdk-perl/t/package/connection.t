use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use FakeDNS;

BEGIN {
    FakeDNS::serve(
        '1.2.0.192.in-addr.arpa PTR' => 'mail.good.example.', 'mail.good.example A' => '192.0.2.1',
        '7.2.0.192.in-addr.arpa PTR' => 'liar.example.', 'liar.example A' => '198.51.100.1',
        '7.2.0.192.dnsbl.example A' => '127.0.0.2', '7.2.0.192.dnsbl.example TXT' => '"seen sending spam"',
        '9.2.0.192.white.example TXT' => '"a friend"',
    );
}

use Test::More;
use QpsmtpdPackage;
use Qpsmtpd::Constants;

# Plugins of Debian's package that look at the client and its greeting: the hit and the miss of each.

my %from = map { $_ => {connection => {remote_ip => "192.0.2.$_", remote_host => $_ == 1 ? 'mail.good.example' : 'liar.example'}} } 1, 7, 8, 9;

{
    my %about = (config => {hosts_allow => ['192.0.2.7 DENY not you', '198.51.100.0/24 DENYSOFT come back later']});
    is plugin('hosts_allow', %{$from{7}}, %about)->hook('connect')->reply, 'not you', 'hosts_allow: an address';
    is plugin('hosts_allow', %about, connection => {remote_ip => '198.51.100.3'})->hook('connect')->rc, DENYSOFT, 'hosts_allow: a network';
    is plugin('hosts_allow', %{$from{1}}, %about)->hook('connect')->rc, DECLINED, 'hosts_allow: others';
}
{
    my $test = plugin('dnsbl', %{$from{7}}, config => {dnsbl_zones => ['dnsbl.example']});
    like $test->hook('connect')->reply, qr/seen sending spam/, 'dnsbl: listed';
    $test = plugin('dnsbl', %{$from{1}}, config => {dnsbl_zones => ['dnsbl.example']});
    is $test->hook('connect')->rc, DECLINED, 'dnsbl: not listed';
}
{
    my $test = plugin('dns_whitelist_soft', %{$from{9}}, config => {whitelist_zones => ['white.example']});
    $test->hook('connect');
    $test->hook(rcpt => address => 'bob@example.org');
    is $test->connection->notes('whitelisthost'), 'a friend', 'dns_whitelist_soft: listed, by sockets in a note';
    $test = plugin('dns_whitelist_soft', %{$from{1}}, config => {whitelist_zones => ['white.example']});
    $test->hook('connect');
    $test->hook(rcpt => address => 'bob@example.org');
    is $test->connection->notes('whitelisthost'), undef, 'dns_whitelist_soft: not listed';
}
{
    my $test = plugin('fcrdns', %{$from{1}});
    is $test->hook('connect')->rc, DECLINED;
    like $test->connection->notes('authentication_results'), qr/iprev=pass/, 'fcrdns: a name that leads back';
    $test = plugin('fcrdns', %{$from{7}});
    $test->hook('connect');
    like $test->connection->notes('authentication_results'), qr/iprev=fail/, 'fcrdns: one that does not';
}
for my $name (qw(helo check_spamhelo)) {
    my %config = (config => {badhelo => ['aol.com', '^x+$']});
    my $greet = sub { my ($host, @more) = @_; plugin($name, %{$from{1}}, %config, @more)->hook(ehlo => host => $host) };
    like $greet->('aol.com')->reply, qr/^I do not believe you are aol\.com/, "$name: a bad one";
    is $greet->('aol.com')->rc, DENY_DISCONNECT, "$name: ends the connection" if $name eq 'helo';
    like $greet->('192.0.2.200')->reply, qr/IP/, "$name: a plain address";
    is $greet->('mail.good.example')->rc, DECLINED, "$name: a good one";
    if ($name eq 'helo') {
        like $greet->('nowhere.example', args => [policy => 'rfc'])->reply, qr/HELO hostname/, 'helo: no such name';
        is $greet->('mail.good.example', args => [policy => 'strict'])->rc, DECLINED, 'helo: all is well';
    }
}
{
    my $test = plugin('count_unrecognized_commands', args => [2]);
    is $test->hook(unrecognized_command => command => 'FOO')->rc, DECLINED, 'count_unrecognized_commands: one';
    my $result = $test->hook(unrecognized_command => command => 'FOO');
    is $result->rc, DENY_DISCONNECT, 'count_unrecognized_commands: one too many';
    like $result->reply, qr/2 unrecognized commands/;
}
{
    my $test = plugin('noop_counter', args => [2]);
    is $test->hook('noop')->rc, DECLINED, 'noop_counter: one';
    $test->hook('noop');
    my $result = $test->hook('noop');
    is $result->rc, DENY_DISCONNECT, 'noop_counter: one too many';
    $test = plugin('noop_counter', args => [2]);
    for (1 .. 4) { $test->hook('noop'); $test->hook(mail => address => 'a@b.example') }
    is $test->hook('noop')->rc, DECLINED, 'noop_counter: not in a row';
}
{
    file('help/rules', "be kind\nand brief\n");
    my $test = plugin('help', args => [help_dir => "$WORK/help/", rules => 'rules', none => 'not_implemented']);
    is $test->hook(help => argument => 'rules')->reply, "be kind\nand brief", 'help: from a file';
    my $result = $test->hook(help => argument => '../etc');
    is_deeply [$result->verdict, $result->code, $result->reply], ['done', 502, 'Invalid command name'], 'help: no such thing';
}
{
    is plugin('random_error', args => [100])->hook('connect')->verdict =~ /deny/ ? 1 : 0, 1, 'random_error: always';
    # It takes 0 for 1.
    is plugin('random_error', args => [-100])->hook('connect')->rc, DECLINED, 'random_error: never';
}
{
    is plugin('loadcheck', args => [max_load => 1000])->hook('connect')->rc, DECLINED, 'loadcheck: room left';
    is plugin('loadcheck', args => [max_load => -1])->hook('connect')->rc, DENYSOFT, 'loadcheck: too much';
}
{
    my $test = plugin('connection_time');
    $test->hook('connect');
    like join("\n", $test->hook('disconnect')->log), qr/[0-9]+\.[0-9]+ s\./, 'connection_time: says it at the end';
}
{
    my $test = plugin('quit_fortune');
    is $test->ready->{hooks} ? 1 : 0, 1, 'quit_fortune: loads';
  SKIP: {
        skip 'fortune is not installed', 1 unless -x '/usr/games/fortune';
        is $test->hook('quit')->code, 221, 'quit_fortune: a last word';
    }
}
{
    my $answer = sub {
        my $socket = shift;
        sysread $socket, my $query, 64;
        # p0f 3: magic, status, first and last seen, count, uptime, modulus, NAT, OS change, distance, match, names of 32 bytes
        syswrite $socket, pack('L7 L2 s C2 a32 a32 a32 a32 a32 a32', 0x50304602, 0x10, 1, 2, 3, 4, 5, 0, 0, 3, 0, 0,
            'Windows', 'XP', '', '', 'ethernet', 'en');
    };
    if (has('Net::IP')) {
        my $test = plugin('ident/p0f', %{$from{1}}, args => [answers($answer), 'version', 3, 'smite_os', 'windows']);
        $test->hook('connect');
        my $note = $test->connection->notes('p0f') // {};
        is $note->{genre} // '', 'Windows XP', 'ident/p0f: what the daemon says';
        is $test->connection->notes('karma'), -1, 'ident/p0f: smitten';
        $test = plugin('ident/p0f', %{$from{1}}, args => ["$WORK/nobody", 'version', 3]);
        is $test->hook('connect')->rc, DECLINED, 'ident/p0f: no daemon';
        is $test->connection->notes('p0f'), undef;
    }
}
if (has('Geo::IP')) {
    my $test = plugin('ident/geoip', %{$from{1}});
    is $test->hook('connect')->rc, DECLINED, 'ident/geoip: without a database nothing is known';
}
if (has('Net::IP')) {
    local $0 = "$WORK/qpsmtpd";
    mkdir "$WORK/config";
    my %about = (%{$from{7}}, args => [negative => 1, strikes => 1, reject => 1, db_dir => "$WORK"], config => {karma_tlds => ['example:-3']});
    my $test = plugin('karma', %about);
    is $test->hook('connect')->rc, DECLINED, 'karma: a stranger';
    $test->hook(mail_parse => line => 'FROM: <alice@client.example>');
    is $test->connection->notes('envelope_from'), 'FROM: <alice@client.example>', 'karma: sees MAIL as it was written';
    is $test->connection->notes('karma'), 0, 'karma: so far nothing is wrong';
    $test->hook(mail => address => 'alice@client.example');
    is $test->connection->notes('karma'), -2, 'karma: a space where none may be';
    $test->{connection}{karma} = -9;
    like $test->hook('data')->reply, qr/very bad karma/, 'karma: who behaves badly';
    $test->hook('disconnect');
    is plugin('karma', %about)->hook('data')->rc, DECLINED, 'karma: others';
}
for my $name (qw(earlytalker check_earlytalker)) {
    # Standard input of a worker is silent (Gatepost::Streams); here it is what an early talker leaves there.
    pipe my $reads, my $writes or die;
    open my $kept, '<&', \*STDIN or die;
    open STDIN, '<&', $reads or die;
    is plugin($name, args => [wait => 0.01])->hook('connect')->rc, DECLINED, "$name: nobody speaks";
    syswrite $writes, "EHLO me\r\n";
    like plugin($name, args => [wait => 0.01])->hook('connect')->reply, qr/started transmitting before/, "$name: somebody does";
    open STDIN, '<&', $kept or die;
}

done_testing;
