package Gatepost::Test;

# Tests a plugin without a server, beside Test::More:
#
#   use Test::More;
#   use Gatepost::Test;
#
#   my $test = Gatepost::Test->new(plugin => 'plugins/badrcptto', config => {badrcptto => ['spam@example.org']});
#   my $result = $test->hook(rcpt => address => 'spam@example.org');
#   is $result->verdict, 'deny';
#
# new(%args): plugin (the file), name, args (list), settings (hash); config, dns, recipients as in Gatepost::Memory; connection,
# transaction (hashes of the protocol's fields, to begin with), notes => {connection => {...}, transaction => {...}};
# message (the whole message, as text or bytes); client_gone (true for a client that hangs up during queue), client_spoke (true for one
# that speaks before its turn).
# Dies with the reasons if the plugin does not load.
#
# The session lasts as long as the object: what one hook changed the next one finds. Several plugins in a chain:
# plugins => [{plugin => ..., name => ..., args => ..., settings => ...}, ...].
#
# settings_in_force({limit => '1MB'}) has the hooks from there on be about a recipient with these settings, as the operator's
# [user."..."] makes them; settings_in_force(undef) ends that.

use strict;
use warnings;

use File::Basename ();
use Gatepost::Core;
use Gatepost::Host;
use Gatepost::Memory;

sub new {
    my ($class, %args) = @_;
    my @plugins = @{$args{plugins} // [{map { $_ => $args{$_} } qw(plugin name args settings)}]};
    my $self = bless {
        memory => Gatepost::Memory->new((map { $_ => $args{$_} } qw(client_gone client_spoke)), map { $_ => $args{$_} // {} } qw(config dns recipients)),
        host   => Gatepost::Host->new,
        connection => {
            remote_ip => '192.0.2.1', remote_port => 50000, local_ip => '192.0.2.25', local_port => 25,
            direction => 'inbound', relay_client => 0, karma => 0, auth_results => [], %{$args{connection} // {}},
        },
        transaction => {%{$args{transaction} // {}}}, number => 1,
        notes => {map { $_ => {%{$args{notes}{$_} // {}}} } qw(connection transaction)},
    }, $class;
    $self->message($args{message}) if defined $args{message};

    my %scratch = (scratch_dir => $args{scratch_dir}, hostname => $args{hostname} // 'mx.example.org');
    $self->{about} = {%scratch, worker => 1};
    my @errors = $self->_within(sub {
        $self->{host}->load([map {
            my $file = $_->{plugin};
            {name => $_->{name} // _name($file), source => $file, dirs => [File::Basename::dirname($file)], args => $_->{args} // [], settings => $_->{settings} // {}}
        } @plugins]);
    });
    die join('', map { "$_->{plugin}: " . (@{$_->{path} // []} ? join('.', @{$_->{path}}) . ': ' : '') . "$_->{message}\n" } @errors)
        if @errors;
    $self->{names} = [map { $_->{name} // _name($_->{plugin}) } @plugins];
    return $self;
}

sub _name { my $file = shift; $file =~ s{.*/}{}; $file =~ s/\.pl\z//; return $file }

sub _within {
    my ($self, $code) = @_;
    local $Gatepost::Core::backend = $self->{memory};
    local %Gatepost::Core::about = %{$self->{about}};
    return $code->();
}

# The message that data hooks and body methods see. Line ends become CRLF, as they are on the wire.
sub message {
    my ($self, $message) = @_;
    utf8::encode($message) if utf8::is_utf8($message);
    $message =~ s/\r?\n/\r\n/g;
    my ($header) = $message =~ /\A(.*?\r\n)(?:\r\n|\z)/s;
    $header = '' if $message =~ /\A\r\n/ || !defined $header;
    my $start = length($header) + 2;
    $self->{memory}{message} = $message;
    @{$self->{transaction}}{qw(size header header_end body_start)} =
        (length $message, $header, length $header, $start > length $message ? length $message : $start);
    return;
}

# All the settings of the first plugin, or of the one named, that hold from here on; undef: those it was made with.
sub settings_in_force {
    my ($self, $settings, $name) = @_;
    $name //= $self->{names}[0];
    defined $settings ? $self->{in_force}{$name} = $settings : delete $self->{in_force}{$name};
    return;
}

# Runs a hook (or event) with its arguments, as in the protocol: rcpt => address => 'bob@example.org'. Gives the
# result of the (last) plugin that ran, a Gatepost::Test::Result.
sub hook {
    my ($self, $hook, %arguments) = @_;
    my $results = $self->results($hook, %arguments);
    return $results->[-1];
}

# The results of all plugins that ran, in order.
sub results {
    my ($self, $hook, %arguments) = @_;
    if ($hook eq 'auth' && $self->{host}->takes_part('auth_mechanism')) {
        # As the core does.
        my $first = $self->results(auth_mechanism => %arguments);
        return $first if ($first->[-1]->verdict // 'declined') ne 'declined' || !$self->{host}->takes_part('auth');
    }
    my %message = (
        hook => $hook, session => 'test', transaction => $self->{number}, plugins => $self->{names}, args => \%arguments,
        $self->_subscribed($hook),
    );
    $self->{memory}->take_log;
    if (Gatepost::Hooks::is_event($hook)) {
        $self->_within(sub { $self->{host}->event(\%message) });
        if ($hook eq 'reset_transaction') {
            ++$self->{number};
            $self->{notes}{transaction} = {};
        }
        return [Gatepost::Test::Result->new({}, [$self->{memory}->take_log])];
    }
    $message{settings} = $self->{in_force} if %{$self->{in_force} // {}};
    my ($results) = $self->_within(sub { $self->{host}->run(\%message) });
    my @log = $self->{memory}->take_log;
    die "the core would refuse this: at `$hook` there are no outcomes for single recipients\n"
        if $hook !~ /\A(?:data_post_headers|data_post|queue_pre|queue)\z/ && grep { $_->{recipients} } @$results;
    $self->_keep($_) for map { @{$_->{changes} // []} } @$results;
    return [map {
        my $result = $_;
        Gatepost::Test::Result->new($result, [grep { !defined $_->{plugin} || $_->{plugin} eq $result->{plugin} } @log]);
    } @$results];
}

# As from the core: nothing but what one of the plugins asked for.
sub _subscribed {
    my ($self, $hook) = @_;
    my @hooks = grep { $_->{hook} eq $hook } map { @{$_->{hooks}} } @{$self->{host}->ready};
    my %wanted = map { $_ => 1 } map { @{$_->{fields}} } @hooks;
    my %message = map { my $fields = $self->{$_}; $_ => {map { $_ => $fields->{$_} } grep { $wanted{$_} } keys %$fields} }
        qw(connection transaction);
    return (
        connection => $message{connection}, transaction_fields => $message{transaction},
        grep({ $_->{reads} } @hooks) ? (notes => $self->{notes}) : (),
    );
}

# What the core would do between hooks: keep the notes, and send the edited header block.
sub _keep {
    my ($self, $change) = @_;
    if ($change->{op} eq 'note') {
        my $notes = $self->{notes}{$change->{scope}};
        defined $change->{value} ? $notes->{$change->{name}} = $change->{value} : delete $notes->{$change->{name}};
    }
    my ($connection, $transaction, $op) = (@$self{qw(connection transaction)}, $change->{op});
    if    ($op eq 'karma')        { $connection->{karma} += $change->{add} }
    elsif ($op eq 'score')        { $connection->{score} += $change->{points} }
    elsif ($op eq 'relay_client') { $connection->{relay_client} = $change->{value} }
    elsif ($op eq 'remote_host')  { $connection->{remote_host} = $change->{name} }
    elsif ($op eq 'remote_info')  { $connection->{remote_info} = $change->{info} }
    elsif ($op eq 'remote' || $op eq 'local') { $connection->{"${op}_$_"} = $change->{$_} for grep { defined $change->{$_} } qw(ip port) }
    elsif ($op eq 'immune' || $op eq 'whitelisted') {
        my $flags = ($change->{scope} // '') eq 'transaction' ? $transaction : $connection;
        $flags->{$op} = $change->{reason};
    }
    elsif ($op eq 'naughty')      { $connection->{naughty} = $change->{message} }
    elsif ($op eq 'auth_result')  { $connection->{auth_results} = [@{$connection->{auth_results}}, $change->{text}] }
    elsif ($op eq 'quarantine')   { $transaction->{quarantine} = $change->{reason} }
    elsif ($op eq 'route') {
        for my $recipient ($change->{address} // @{$transaction->{recipients} // []}) {
            defined $change->{route} ? $self->{routes}{$recipient} = $change->{route} : delete $self->{routes}{$recipient};
        }
    }
    elsif ($op eq 'set_sender')   { $transaction->{sender} = $change->{address} }
    elsif ($op eq 'add_recipient') {
        push @{$transaction->{recipients} //= []}, $change->{address};
        push @{$transaction->{recipient_parameters} //= []}, {};
    }
    elsif ($op eq 'remove_recipient') {
        my @all = @{$transaction->{recipients} // []};
        my @kept = grep { $all[$_] ne $change->{address} } 0 .. $#all;
        $transaction->{$_} = [@{$transaction->{$_} // []}[@kept]] for qw(recipients recipient_parameters);
    }
    return unless $op =~ /_header\z/;
    my $header = $self->transaction->header or return;
    my $bytes = $header->as_string;
    $bytes =~ s/\n/\r\n/g;
    $self->{transaction}{header} = $bytes;
    return;
}

# The objects that the plugin sees, for a look at notes and the like.
sub qp          { $_[0]{host}->session_qp('test') }
sub connection  { $_[0]->qp->connection }
sub transaction { $_[0]->qp->transaction }

# The plugin object itself, the first by default, to call its own methods. Calls that ask the core need a hook.
sub plugin {
    my ($self, $name) = @_;
    return $self->{host}->plugin($name // $self->{names}[0], 'test');
}

# What the plugin announces to the core: {name, hooks, policy, settings}.
sub ready {
    my ($self, $name) = @_;
    $name //= $self->{names}[0];
    return (grep { $_->{name} eq $name } @{$self->{host}->ready})[0];
}

sub state { $_[0]{memory}{state} }

# The routes that plugins gave, by recipient.
sub routes { $_[0]{routes} //= {} }

package Gatepost::Test::Result;

use Qpsmtpd::Constants ();

sub new {
    my ($class, $entry, $log) = @_;
    my %entry = %$entry;
    delete $entry{_bytes};
    return bless {entry => \%entry, log => $log}, $class;
}

# What the plugin said aloud; undef leaves the decision to the operator's policy.
sub verdict     { $_[0]{entry}{verdict} }
sub disposition { $_[0]{entry}{disposition} }
sub message     { $_[0]{entry}{message} }
sub code        { $_[0]{entry}{code} }
sub enhanced    { $_[0]{entry}{enhanced} }
sub reply       { join "\n", @{$_[0]{entry}{reply} // []} }
sub changes     { $_[0]{entry}{changes} // [] }
sub delay_ms    { $_[0]{entry}{delay_ms} }
sub values      { $_[0]{entry}{values} // [] }
sub settings    { $_[0]{entry}{settings} }
sub entry       { $_[0]{entry} }

# What holds for single recipients: from the address to a Gatepost::Test::Result.
sub recipients {
    my $self = shift;
    return {map { $_->{address} => (ref $self)->new($_, []) } @{$self->{entry}{recipients} // []}};
}

# qpsmtpd's return code: DECLINED where there is no verdict.
sub rc { Qpsmtpd::Constants::verdict_code($_[0]{entry}{verdict} // 'declined') }

# Lines that are not the disposition, as "level message".
sub log { map { "$_->{level} $_->{message}" } @{$_[0]{log}} }

1;
