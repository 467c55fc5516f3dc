use strict;
use warnings;

use Cwd ();
use File::Basename ();
use File::Path ();
use File::Temp ();
use FindBin;
use Test::More;
use Gatepost::Memory;
use Gatepost::PluginTests;
use Qpsmtpd::Auth;
use Qpsmtpd::Command;
use Qpsmtpd::Constants;
use Qpsmtpd::DB;
use Qpsmtpd::SMTP;
use Qpsmtpd::TcpServer;

# Without a server: plugins are loaded and called, configuration is files, and all objects are in memory.

my $dir = File::Temp->newdir;

sub file {
    my ($name, $text) = @_;
    File::Path::make_path(File::Basename::dirname("$dir/$name"));
    open my $handle, '>', "$dir/$name" or die "$name: $!";
    print {$handle} $text;
    close $handle or die "$name: $!";
    return;
}

file('config/fruit', "# mine\n\n  apple pie \n\$include more\npear\n");
file('config/more', "quince\n\$include fruit\n");
file('config/table', "a: 1\nb: 2\n");
file('config/plugins', "picky apple\npicky:2 pear\n");
file('config/plugin_dirs', "$dir/plugins\n");
file('plugins/picky', <<'END');
our $loaded = 0;
sub register {
    my ($self, $qp, $what) = @_;
    $self->{what} = $what;
    ++$loaded;
    $qp->connection->notes("seen_$what" => 1);
}
sub hook_rcpt {
    my ($self, $transaction, $recipient) = @_;
    return DECLINED if $recipient->user ne $self->{what};
    $self->connection->notes(who => $self->hook_name . ' ' . $self->plugin_name);
    return DENY, "no $self->{what}\nat all";
}
sub hook_config {
    my ($self, $transaction, $name) = @_;
    return DECLINED unless $name eq 'dynamic';
    return OK, 'one', 'two';
}
END
file('t/plugin_tests/picky', <<'END');
sub register_tests { $_[0]->register_test('test_pick'); }
sub test_pick {
    my $self = shift;
    my ($rc) = $self->hook_rcpt($self->qp->transaction, Qpsmtpd::Address->new('<plum@example.org>'));
    is $rc, DENY;
    $self->mock_config(fruit => ['mocked']);
    is $self->qp->config('fruit'), 'mocked';
    $self->unmock_config;
    is $self->qp->config('fruit'), 'apple pie';
    is $self->connection->remote_ip, '127.0.0.1';
    is $self->transaction, $self->qp->transaction;
}
END

local $ENV{QPSMTPD_CONFIG} = "$dir/config";

subtest config => sub {
    my $qp = Qpsmtpd::SMTP->new;
    is_deeply [$qp->config('fruit')], ['apple pie', 'quince', 'pear'], 'included once';
    is scalar $qp->config('fruit'), 'apple pie';
    is_deeply [$qp->config('nothing')], [];
    is_deeply $qp->config('table', 'map'), {a => 1, b => 2};
    is $qp->config('timeout'), 1200, 'a default';
    is $qp->config('me'), 'localhost';
    is_deeply [$qp->config('fruit', {rcpt => 'x'})], ['apple pie', 'quince', 'pear'], 'a plain hash is none of its arguments';
    is $qp->config_dir('fruit'), "$dir/config";
    local $ENV{PROCESS} = "$dir/qpsmtpd";
    local $ENV{QPSMTPD_CONFIG};
    is $qp->config_dir('fruit'), "$dir/config", 'beside the program';
};

subtest 'a chain' => sub {
    my $qp = Qpsmtpd::SMTP->new;
    local $Qpsmtpd::hooks = {};
    is_deeply [map { $_->plugin_name } $qp->load_plugins], ['picky', 'picky_3a2'];
    is $qp->connection->notes('seen_pear'), 1, 'notes of register';
    is_deeply [map { $_->{name} } $qp->hooks('rcpt')], ['picky', 'picky_3a2'];
    is_deeply [sort keys %{$qp->hooks}], ['config', 'rcpt'];
    is_deeply [$qp->run_hooks(rcpt => Qpsmtpd::Address->new('<pear@example.org>'))], [DENY, 'no pear', 'at all'];
    is $qp->connection->notes('who'), 'rcpt picky_3a2';
    is_deeply [$qp->run_hooks(rcpt => Qpsmtpd::Address->new('<plum@example.org>'))], [0, ''], 'nobody minds';
    is_deeply [$qp->config('dynamic')], ['one', 'two'], 'a hook config';
    no warnings 'once';
    is $Qpsmtpd::Plugin::picky::loaded, 1, 'each copy has its own variables';
};

subtest "a test in qpsmtpd's form" => sub {
    my $here = Cwd::getcwd();
    chdir $dir or die "$dir: $!";
    local $Qpsmtpd::hooks = {};
    Gatepost::PluginTests::run('picky:3 plum');
    chdir $here or die "$here: $!";
};

subtest 'recipients of their own' => sub {
    my $qp = Qpsmtpd::SMTP->new;
    $qp->mock_hook(user_config => sub {
        my (undef, undef, $address, $name) = @_;
        return $address->user eq 'bob' && $name eq 'fruit' ? (OK, "fig\nlime") : DECLINED;
    });
    is_deeply [$qp->config('fruit', $qp->address('<bob@example.org>'))], ['fig', 'lime'];
    is scalar $qp->address('<bob@example.org>')->config('fruit'), 'fig';
    is scalar $qp->address('<eve@example.org>')->config('fruit'), 'apple pie';
    $qp->unmock_hook('user_config');
};

subtest connection => sub {
    my $connection = Qpsmtpd::Connection->new->start(remote_ip => '192.0.2.7', hello => 'ehlo', hello_host => 'client.example');
    $connection->relay_client(1);
    $connection->notes(colour => 'red');
    my $clone = $connection->clone;
    is $clone->remote_ip, '192.0.2.7';
    is $clone->relay_client, 1;
    is $clone->hello, undef, 'the greeting is forgotten';
    is $clone->notes('colour'), 'red';
    is $connection->remote_ip, undef, 'the old one is empty';
};

subtest 'files of a transaction' => sub {
    my $qp = Qpsmtpd::SMTP->new;
    my $folder = $qp->temp_dir;
    is +(stat $folder)[2] & 07777, 0700, 'the mask is octal';
    my $file = $qp->transaction->temp_file;
    open my $handle, '>', $file or die "$file: $!";
    close $handle;
    $qp->reset_transaction;
    ok !-e $folder && !-e $file, 'gone with it';
    my $transaction = $qp->transaction;
    $transaction->body_write("Subject: x\n\nhello\n");
    is $transaction->data_size, 18;
    is $transaction->body_getline, "Subject: x\n";
    is $transaction->body_as_string, "Subject: x\n\nhello\n";
    is join('', readline $transaction->body_fh), "Subject: x\n\nhello\n";
};

subtest validate_password => sub {
    local $Gatepost::Core::backend = Gatepost::Memory->new;
    my $self = Qpsmtpd::Plugin->new(_gatepost => {name => 'auth'});
    my $try = sub { [Qpsmtpd::Auth::validate_password($self, @_)] };
    is_deeply $try->(src_clear => 'secret', attempt_clear => 'secret', method => 'plain'), [OK, 'memory.t'];
    is_deeply $try->(src_clear => 'secret', attempt_clear => 'guess', method => 'plain'), [DENY, 'memory.t - wrong password'];
    is $try->(src_clear => 'secret', attempt_clear => 'guess', deny => DECLINED)->[0], DECLINED;
    is $try->(src_crypt => crypt('secret', 'ab'), attempt_clear => 'secret', method => 'login')->[0], OK;
    is $try->(src_crypt => 'abJnggxhB/yWI', attempt_hash => 'x', method => 'cram-md5', ticket => 'x')->[0], DECLINED, 'needs it in clear';
    # RFC 2195 section 2
    my %cram = (
        src_clear => 'tanstaaftanstaaf', method => 'cram-md5', ticket => '<1896.697170952@postoffice.reston.mci.net>',
        attempt_hash => 'b913a602c7eda7a495b4e6e7334d3890',
    );
    is $try->(%cram)->[0], OK;
    is $try->(%cram, src_clear => 'other')->[0], DENY;
    is $try->(attempt_clear => 'x')->[0], DENY;
};

subtest parse => sub {
    is_deeply [Qpsmtpd::Command->parse(mail => 'FROM:<a@b.example> SIZE=10 8BIT')], [OK, '<a@b.example>', size => 10, '8bit' => undef];
    is_deeply [Qpsmtpd::Command->parse(rcpt => 'to: <"a> b"@b.example>')], [OK, '<"a> b"@b.example>'];
    is +(Qpsmtpd::Command->parse(mail => 'nonsense <x>'))[0], DENY;
    is_deeply [Qpsmtpd::Command->parse(ehlo => 'client.example x')], [OK, 'client.example', 'x'];
    is_deeply [Qpsmtpd::Command->parse(mail => 'x', sub { my ($self, @rest) = @_; (ref $self, @rest) })], ['Qpsmtpd::Command', 'mail', 'x'];
};

subtest 'a DBM file' => sub {
    my $self = Qpsmtpd::Plugin->new(_gatepost => {name => 'karma'});
    no warnings 'once';
    local *Qpsmtpd::Plugin::plugin_name = sub { 'karma' };
    my $db = $self->db(class => 'Qpsmtpd::DB::File::DBM', dir => "$dir");
    is $self->db, $db, 'made once';
    is $db->path, "$dir/karma.dbm";
    ok $db->lock;
    is $db->set(a => 1), 1;
    $db->set(b => 2);
    is_deeply [$db->mget(qw(a b c))], [1, 2, undef];
    ok $db->unlock, 'was locked';
    ok !eval { $db->get('a') }, 'not without the lock';
    ok $db->lock;
    is_deeply [sort $db->get_keys], ['a', 'b'];
    is $db->delete(qw(a c)), 1;
    is $db->size, 1;
    ok $db->flush;
    is $db->size, 0;
    $db->unlock;
    ok !eval { $db->dir('/nowhere') };
    like $@, qr{/nowhere};
    ok !eval { $self->db_args('odd'); 1 };
    like $@, qr/Invalid db arguments/;
};

is Qpsmtpd::TcpServer::has_ipv6(), 1;

done_testing;
