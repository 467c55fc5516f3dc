use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use IO::Socket::INET;
use POSIX ();
use Test::More;
use QpsmtpdPackage;
use Qpsmtpd::Constants;

# Plugins of Debian's package that know who somebody is: who gives the right password, and who does not.

sub auth {
    my ($test, $mechanism, %given) = @_;
    return $test->hook(auth => mechanism => $mechanism, user => 'bob@example.org', %given)->rc;
}

{
    my $test = plugin('auth/auth_flat_file', config => {flat_auth_pw => ['bob@example.org:tanstaaftanstaaf']});
    is auth($test, 'PLAIN', password => 'tanstaaftanstaaf'), OK, 'auth_flat_file: PLAIN';
    is auth($test, 'LOGIN', password => 'tanstaaftanstaaf'), OK, 'auth_flat_file: LOGIN';
    is auth($test, 'PLAIN', password => 'guess'), DENY, 'auth_flat_file: a wrong password';
    is auth($test, 'PLAIN', user => 'eve@example.org', password => 'x'), DECLINED, 'auth_flat_file: nobody it knows';
    my @digest = (challenge => '<1896.697170952@postoffice.reston.mci.net>', response => 'b913a602c7eda7a495b4e6e7334d3890');
    is auth($test, 'CRAM-MD5', @digest), OK, 'auth_flat_file: CRAM-MD5';
    is auth($test, 'CRAM-MD5', @digest, response => '0' x 32), DENY, 'auth_flat_file: a wrong digest';
}
{
    my $reads_login = sub { "#!/bin/sh\ntr '\\000' ' ' <&3 | grep -q '^$_[0] ' && exec \"\$@\"\nexit 1\n" };
    my $checkpw = file('checkpw', $reads_login->('bob@example.org secret'), 0755);
    my $test = plugin('auth/auth_checkpassword', args => [checkpw => $checkpw, true => '/bin/true']);
    is auth($test, 'PLAIN', password => 'secret'), OK, 'auth_checkpassword: by notes that register left';
    is auth($test, 'PLAIN', password => 'guess'), DECLINED, 'auth_checkpassword: a wrong password';
}
{
    my $test = plugin('auth/authdeny');
    is auth($test, 'PLAIN', password => 'x'), DECLINED, 'authdeny: nobody';
}
{
    my $cvm = sub { my $code = shift; answers(sub { my $socket = shift; sysread $socket, my $query, 1024; syswrite $socket, chr($code) . "\0" x 8 }) };
    for ([0, OK, 'the right password'], [100, DENY, 'a wrong one']) {
        my ($code, $rc, $what) = @$_;
        my $test = plugin('auth/auth_cvm_unix_local', args => [cvm_socket => $cvm->($code), enable_smtp => 'yes', enable_ssmtp => 'yes']);
        is auth($test, 'PLAIN', password => 'x'), $rc, "auth_cvm_unix_local: $what";
    }
}
for (['+OK', OK, 'the right password'], ['-ERR', DECLINED, 'a wrong one']) {
    my ($says, $rc, $what) = @$_;
    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die $!;
    my $child = fork // die $!;
    if (!$child) {
        alarm 30;
        my $socket = $listener->accept;
        $socket->autoflush(1);
        print {$socket} "+OK\r\n";
        while (my $line = <$socket>) {
            print {$socket} $line =~ /\A(?:login|slogin|clogin)/ ? "$says\r\n" : "+OK\r\n";
            last if $line =~ /\Aquit/;
        }
        POSIX::_exit(0);
    }
    my $test = plugin('auth/auth_vpopmaild', args => [host => '127.0.0.1', port => $listener->sockport]);
    is auth($test, 'PLAIN', password => 'x'), $rc, "auth_vpopmaild: $what";
    kill KILL => $child;
}
if (has('Net::LDAP')) {
    my $test = plugin('auth/auth_ldap_bind', args => [ldap_host => '127.0.0.1', ldap_port => 1, ldap_base => 'dc=example'], config => {ldap => ['ldap_base dc=example', 'ldap_port 1']});
    is auth($test, 'PLAIN', password => 'x'), DECLINED, 'auth_ldap_bind: no server';
}
if (has('DBI')) {
    is auth(plugin('auth/auth_vpopmail_sql'), 'PLAIN', password => 'x'), DECLINED, 'auth_vpopmail_sql: no database';
}

done_testing;
