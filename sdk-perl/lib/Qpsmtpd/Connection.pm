package Qpsmtpd::Connection;

# A client's connection: $self->connection, $self->qp->connection. Attributes are read and set by one method each.
# Setting relay_client and remote_host tells the core, and so does setting remote_ip, remote_port, local_ip, local_port and remote_info in the hooks
# pre-connection and connect; else these, and the other attributes, change for the plugins of this process only.
#
# Some notes of qpsmtpd are fields of Gatepost's session, and so are shared by all plugins in all languages:
# karma, naughty, whitelisthost (who vouches for the client), authentication_results, and tls_enabled, which only the core
# can set.

use strict;
use warnings;

use parent -norequire, 'Qpsmtpd::Notes';
use Qpsmtpd::Notes;
use Gatepost::Changes;

sub new {
    my ($class, %fields) = @_;
    return bless {_fields => \%fields, _local => {}, _notes => {}}, $class;
}

# The same connection again, and what its constructor takes; as in memory, where there is no core to set the fields.
sub start {
    my ($self, %fields) = @_;
    $self = (ref $self || $self)->new unless ref $self;
    @{$self->{_fields}}{keys %fields} = values %fields;
    return $self;
}

sub reset { %{$_[0]} = (_fields => {}, _local => {}, _notes => {}); return }

# What TLS leaves of a connection: the addresses and the notes, not the greeting. The old one is reset unless {no_reset} is said.
sub clone {
    my ($self, %args) = @_;
    my %kept = %{$self->{_fields}};
    delete @kept{qw(hello hello_host)};
    my $clone = (ref $self)->new(%kept);
    $clone->{_local} = {%{$self->{_local}}};
    $clone->{_notes} = $self->{_notes};
    $self->reset unless $args{no_reset};
    return $clone;
}

sub note_scope { 'connection' }

# Fields as the core sent them are taken over, not copied: this runs once a hook.
sub update { $_[0]{_fields} = $_[1] }

# The changes by which the core learns of an attribute.
my %told = (
    (map { ("${_}_ip" => [$_, 'ip'], "${_}_port" => [$_, 'port']) } qw(remote local)), remote_info => ['remote_info', 'info'],
);

for my $name (qw(remote_ip remote_port local_ip local_port local_host remote_info hello_host direction)) {
    no strict 'refs';
    *$name = sub {
        $_[0]->_set($name, $_[1]) if @_ > 1;
        return $_[0]{_local}{$name} // $_[0]{_fields}{$name};
    };
}

sub _set {
    my ($self, $name, $value) = @_;
    no warnings 'once';
    my $hook = $Qpsmtpd::Plugin::current_hook // '';
    my $change = $told{$name};
    if (!$change || !defined $value || !$Gatepost::Changes::list || $hook !~ /\A(?:pre-connection|connect)\z/) {
        $self->{_local}{$name} = $value;
        return;
    }
    my ($op, $key) = @$change;
    die "$name: \"$value\" is no port\n" if $key eq 'port' && $value !~ /\A[0-9]{1,5}\z/;
    Gatepost::Changes::record(op => $op, $key => $value);
    delete $self->{_local}{$name};
    $self->{_fields}{$name} = $value;
    return;
}

sub hello {
    my $self = shift;
    $self->{_fields}{hello} = shift if @_;
    return defined $self->{_fields}{hello} ? lc $self->{_fields}{hello} : undef;
}

# qpsmtpd's word for a client without a verified name.
sub remote_host {
    my $self = shift;
    if (@_) {
        $self->{_fields}{remote_host} = shift;
        Gatepost::Changes::record(op => 'remote_host', name => $self->{_fields}{remote_host});
    }
    return $self->{_fields}{remote_host} // 'Unknown';
}

sub relay_client {
    my $self = shift;
    if (@_) {
        $self->{_fields}{relay_client} = $_[0] ? 1 : 0;
        Gatepost::Changes::record(op => 'relay_client', value => $self->{_fields}{relay_client});
    }
    return $self->{_fields}{relay_client} ? 1 : 0;
}

sub early_talker  { $_[0]{_fields}{early_talker} ? 1 : 0 }
sub authenticated { $_[0]{_fields}{authenticated} }
sub immune        { $_[0]{_fields}{immune} }

for my $name (qw(tls_version tls_cipher tls_server_name tls_client_name)) {
    no strict 'refs';
    *$name = sub { $_[0]{_fields}{$name} };
}

my %special = (
    karma => sub {
        my ($fields, $karma) = @_;
        Gatepost::Changes::record(op => 'karma', add => int(($karma // 0) - ($fields->{karma} // 0)));
        $fields->{karma} = $karma // 0;
    },
    naughty => sub {
        my ($fields, $message) = @_;
        # Plugins also set it to 1, which is no reason to tell a client.
        my $text = !$message ? undef : $message eq '1' ? 'naughty' : $message;
        $text =~ s/[\r\n]+/; /g if defined $text;
        Gatepost::Changes::record(op => 'naughty', message => $text);
        $fields->{naughty} = $message;
    },
    whitelisthost => sub {
        my ($fields, $reason) = @_;
        my $text = !$reason ? undef : $reason eq '1' ? 'whitelisted host' : $reason;
        Gatepost::Changes::record(op => 'whitelisted', reason => $text);
        $fields->{whitelisted} = $text;
    },
    tls_enabled            => sub { },
    authentication_results => sub {
        my ($fields, $text) = @_;
        my @old = @{$fields->{auth_results} // []};
        my $old = join '; ', @old;
        $text = defined $text ? $text : '';
        my $new = @old && index($text, "$old; ") == 0 ? substr $text, 2 + length $old : $text;
        return if $new eq '' || $new eq $old;
        Gatepost::Changes::record(op => 'auth_result', text => $new);
        $fields->{auth_results} = [$new eq $text ? $new : (@old, $new)];
    },
);

my %special_value = (
    karma                  => sub { $_[0]{karma} },
    naughty                => sub { $_[0]{naughty} },
    whitelisthost          => sub { $_[0]{whitelisted} },
    tls_enabled            => sub { defined $_[0]{tls_version} ? 1 : undef },
    authentication_results => sub { my $all = $_[0]{auth_results}; $all && @$all ? join '; ', @$all : undef },
);

sub notes {
    my ($self, $key) = @_;
    my $get = $special_value{$key} or return $self->SUPER::notes(@_[1 .. $#_]);
    return $get->($self->{_fields}) if @_ == 2;
    $special{$key}->($self->{_fields}, $_[2]);
    return $_[2];
}

1;
