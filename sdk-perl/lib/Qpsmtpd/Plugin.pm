package Qpsmtpd::Plugin;

# The base class of every plugin file. A plugin is a plain hash; _args holds its arguments and settings where the
# plugin put them, and is what reject, reject_type and loglevel are read from. Keys used here: _args, _qp, _resolver, _async_resolver, db, db_args,
# and _gatepost for what no plugin looks at: name, package, dirs, number, settings, registered, priority, guard.

use strict;
use warnings;

use parent -norequire, 'Qpsmtpd::Base';
use Qpsmtpd::Address;
use Qpsmtpd::Base;
use Qpsmtpd::Constants;
use Qpsmtpd::SMTP;
use Gatepost::Changes;
use Gatepost::Copies;
use Gatepost::Hooks;
use Gatepost::Log;
use Gatepost::Outcome;

# The daemon object and the hook of the session that is being served: the same for all plugins, so it is set once a
# hook and not once a plugin. An object's own _qp wins (tests).
our ($current_qp, $current_hook);

sub new {
    my ($class, %args) = @_;
    return bless {%args}, $class;
}

sub qp          { $_[0]{_qp} // $current_qp }
sub hook_name   { $current_hook }

# Straight to the slot: every plugin of a segment comes through here, most of them more than once.
sub connection { ($_[0]{_qp} // $current_qp)->{_connection} }

sub transaction { $_[0]->qp->transaction }

sub auth_user      { $_[0]->qp->auth_user }
sub auth_mechanism { $_[0]->qp->auth_mechanism }
sub spool_dir      { $_[0]->qp->spool_dir }
sub temp_file      { $_[0]->qp->temp_file }
sub temp_dir       { $_[0]->qp->temp_dir }

# The plugin's settings in gatepost.toml, with the defaults it declared.
sub settings { $_[0]{_gatepost}{settings} //= {} }

# $method is a method's name or a code reference. True in $unshift puts it before the plugin's other code for that
# hook, and the plugin before all others there. Not qpsmtpd's: in its place `priority => ...`, which is the plugin's place among
# those of the hook: `first`, `last` or an integer, of which smaller ones come earlier. Dies on a hook that does not exist.
sub register_hook {
    my ($self, $hook, $method, $unshift, $priority) = @_;
    my $name = $self->plugin_name;
    die "$name: there is no hook \"$hook\"\n" unless Gatepost::Hooks::is_known($hook);
    if (($unshift // '') eq 'priority') {
        $priority //= '';
        die "$name: a priority is first, last or an integer, not \"$priority\"\n" unless $priority =~ /\A(?:first|last|-?[0-9]{1,9})\z/;
        undef $unshift;
    }
    else { $priority = $unshift ? 'first' : undef }
    $self->{_gatepost}{priority}{$hook} = $priority if defined $priority;
    my $list = $self->{_gatepost}{registered}{$hook} //= [];
    my $all = $Qpsmtpd::hooks->{$hook} //= [];
    my $entry = {name => $name, code => sub {
        my ($qp, @arguments) = @_;
        my $plugin = Gatepost::Copies::of($self);
        local $plugin->{_qp} = $qp;
        local ($current_qp, $current_hook) = ($qp, $hook);
        return $plugin->$method(@arguments);
    }};
    $unshift ? unshift @$list, $method : push @$list, $method;
    $unshift ? unshift @$all, $entry   : push @$all, $entry;
    return;
}

# Makes the class $package of a plugin file; $name is what plugin_name gives. With $test the file t/plugin_tests/$file below the working
# folder becomes part of it, and Gatepost::PluginTests runs what is in there.
sub compile {
    my ($class, $name, $package, $path, $test, $file) = @_;
    my $tests;
    if ($test && open my $handle, '<', "t/plugin_tests/$file") {
        require Gatepost::PluginTests;
        $tests = qq(use Test::More;\n#line 1 "t/plugin_tests/$file"\n) . do { local $/; <$handle> };
    }
    require Gatepost::Loader;
    Gatepost::Loader::compile($package, $name, $path, $tests);
    return 1;
}

# The plugin's own table (Qpsmtpd::DB); the arguments count when it is first asked for.
sub db {
    my ($self, %args) = @_;
    return $self->{db} //= do {
        require Qpsmtpd::DB;
        Qpsmtpd::DB->new($self->db_args(%args));
    };
}

sub db_args {
    my ($self, @args) = @_;
    $self->validate_db_args(@args);
    $self->{db_args} = {name => $self->plugin_name, cnx_timeout => 1, %{$self->{db_args} // {}}, @args};
    return %{$self->{db_args}};
}

sub validate_db_args {
    my ($self, @args) = @_;
    die "Invalid db arguments\n" if @args % 2;
    return 1;
}

# Makes another plugin file the parent of this one, compiled once more for it alone.
sub isa_plugin {
    my ($self, $parent) = @_;
    require Gatepost::Loader;
    my $package = "$self->{_gatepost}{package}/isa/$parent";
    my $base = Gatepost::Loader::load("$self->{_gatepost}{name}/isa/$parent", Gatepost::Loader::find($parent, $self->{_gatepost}{dirs}), $package);
    no strict 'refs';
    my $isa = \@{ref($self) . '::ISA'};
    unshift @$isa, $base unless grep { $_ eq $base } @$isa;
    return;
}

# init, then the hook_* methods, then register: the order of qpsmtpd.
sub _register {
    my ($self, $qp, @args) = @_;
    local $self->{_qp} = $qp;
    $self->init($qp, @args) if $self->can('init');
    for my $hook (@Gatepost::Hooks::ORDER) {
        (my $method = "hook_$hook") =~ s/\W/_/g;
        $self->register_hook($hook, $method) if $self->can($method);
    }
    $self->register($qp, @args) if $self->can('register');
    return;
}

sub log {
    my ($self, $level, @message) = @_;
    $level = $self->_adjusted($level) if $self->{_args} && defined $self->{_args}{loglevel};
    Gatepost::Log::line($self->{_gatepost}{name}, $level, grep { defined } @message);
    return;
}

# loglevel is a level of its own, or +N / -N; the result stays within 0 to 7.
sub _adjusted {
    my ($self, $level) = @_;
    my $by = $self->{_args}{loglevel};
    my $new = $by =~ /\A[0-7]\z/ ? $by : $by =~ /\A([+-][0-9]+)\z/ ? $level + $1 : undef;
    if (!defined $new) {
        delete $self->{_args}{loglevel};
        $self->log(LOGERROR, "loglevel \"$by\" is not understood; use 0 to 7, +N or -N");
        return $level;
    }
    return $new < 0 ? 0 : $new > 7 ? 7 : $new;
}

# What a failure costs, by the argument `reject`: (return code, text). False tolerates it, `naughty` keeps it for the
# phase where the plugin naughty stands, anything else refuses, as reject_type says.
sub get_reject {
    my ($self, $text, $log) = @_;
    $text = 'unspecified error' unless defined $text && $text ne '';
    my $reject = $self->{_args} ? $self->{_args}{reject} : undef;
    $log = defined $log && $log ne '' ? ", $log" : '';
    if (defined $reject && !$reject) {
        $self->log(LOGINFO, "fail, tolerated$log");
        return DECLINED;
    }
    if (defined $reject && $reject eq 'naughty') {
        $self->log(LOGINFO, "fail, NAUGHTY$log");
        return $self->store_deferred_reject('(' . $self->plugin_name . ") $text");
    }
    $self->log(LOGINFO, "fail$log");
    return ($self->get_reject_type, $text);
}

my %reject_type = (
    temp       => DENYSOFT,        soft            => DENYSOFT,
    perm       => DENY,            hard            => DENY,
    disconnect => DENY_DISCONNECT, temp_disconnect => DENYSOFT_DISCONNECT,
);

# $default may be a word, too: that is how the plugin naughty asks for a disconnect.
sub get_reject_type {
    my ($self, $default, $type) = @_;
    $type //= $self->{_args} ? $self->{_args}{reject_type} : undef;
    return $reject_type{lc($type // '')} // $reject_type{lc($default // '')} // $default // DENY;
}

sub store_deferred_reject {
    my ($self, $text) = @_;
    my $connection = $self->connection;
    my $before = $connection->notes('naughty');
    $connection->notes(naughty => $before ? "$before; $text" : $text);
    if (!$connection->notes('naughty_reject_type')) {
        my $type = $self->{_args} ? $self->{_args}{reject_type} : undef;
        $connection->notes(naughty_reject_type => $type) if defined $type;
    }
    return DECLINED;
}

# What holds for one recipient instead of what the hook returns: a return code and a text, as a hook returns them. In the hooks
# data_post_headers, data_post, queue_pre and queue. Not qpsmtpd's, where the fate of a message is that of all its recipients.
sub recipient_verdict {
    my ($self, $recipient, $rc, @text) = @_;
    my $address = Qpsmtpd::Address->of($recipient)->to_wire;
    Gatepost::Changes::judge(Gatepost::Outcome::of_recipient($address, $rc, @text));
    return;
}

# The client waits so many seconds for its reply, whatever that is, and nothing sleeps meanwhile but the client. Not qpsmtpd's, where a
# plugin had to sleep itself.
sub delay_reply {
    my ($self, $seconds) = @_;
    Gatepost::Changes::delay(int($seconds * 1000)) if $seconds > 0;
    return;
}

# Not qpsmtpd's: `return $self->quarantine('looks like spam')` takes the message, of which the client is told that all is well, and keeps it
# in the store for a while; hold keeps it until somebody decides, discard throws it away. The reason is for the log and for who
# looks into the store. What they return is a return code and a text, so that it goes into recipient_verdict, too.
sub discard    { return ($Qpsmtpd::Constants::DIVERSION{discard},    $_[1] // ()) }
sub quarantine { return ($Qpsmtpd::Constants::DIVERSION{quarantine}, $_[1] // ()) }
sub hold       { return ($Qpsmtpd::Constants::DIVERSION{hold},       $_[1] // ()) }

# Not qpsmtpd's: `return $self->delivered('Queued!')` in the hook queue is OK, and says that the message is where its recipients read it; relayed,
# which is what OK means, that it is with a system that will not tell the sender; told, that the sender is told by others, or need not be. A
# sender who asked (RFC 3461) is notified accordingly.
sub delivered { return ($Qpsmtpd::Constants::SUCCESS{delivered}, $_[1] // ()) }
sub relayed   { return ($Qpsmtpd::Constants::SUCCESS{relayed},   $_[1] // ()) }
sub told      { return ($Qpsmtpd::Constants::SUCCESS{none},      $_[1] // ()) }

# Not qpsmtpd's: gives points, fractions of which count down to a thousandth, for a reason. Above 0 they speak against the client. What they
# come to with those of all other plugins is judged by the plugin score. Without arguments: the points so far.
sub score {
    my ($self, $points, $reason) = @_;
    my $fields = $self->connection->{_fields};
    return ($fields->{score} // 0) / 1000 if @_ < 2;
    my $thousandths = sprintf '%.0f', $points * 1000;
    Gatepost::Changes::record(op => 'score', points => 0 + $thousandths, reason => $reason // '');
    $fields->{score} = ($fields->{score} // 0) + $thousandths;
    $self->log(LOGINFO, ($points > 0 ? 'fail' : 'pass') . (defined $reason && $reason ne '' ? ", $reason" : ''));
    return DECLINED;
}

# Get, or set with a text (false clears it).
sub is_naughty {
    my $self = shift;
    my $connection = $self->connection;
    if (@_) {
        my $value = shift;
        $connection->notes(naughty => $value);
        $connection->notes(rejected => $value);
        return $value ? 1 : undef;
    }
    return $connection->notes('naughty');
}

# Whether nothing is to be refused, with a line that says why.
sub is_immune {
    my $self = shift;
    my $connection = $self->connection;
    my $why = $connection->relay_client                    ? 'relay client'
            : $connection->notes('whitelisthost')           ? 'whitelisted host'
            : $self->transaction->notes('whitelistsender') ? 'whitelisted sender'
            : $connection->immune // $self->transaction->immune // return;
    $self->log(LOGINFO, "skip, $why");
    return 1;
}

sub adjust_karma {
    my ($self, $by) = @_;
    my $connection = $self->connection;
    my $karma = ($connection->notes('karma') // 0) + $by;
    $connection->notes(karma => $karma);
    $self->log(LOGINFO, "karma $by ($karma)");
    return $by;
}

# $text is like `iprev=pass policy.iprev=192.0.2.1`; the core writes the header.
sub store_auth_results {
    my ($self, $text) = @_;
    my $connection = $self->connection;
    my $before = $connection->notes('authentication_results');
    $connection->notes(authentication_results => defined $before && $before ne '' ? "$before; $text" : $text);
    return;
}

1;
