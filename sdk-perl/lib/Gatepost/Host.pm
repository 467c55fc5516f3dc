package Gatepost::Host;

# Holds any number of plugins and runs them: what qpsmtpd's core did with a hook. No wire in here; Gatepost::Worker
# feeds it from the core, Gatepost::Test from a test.
#
# load(\@plugins)  the list of `init`; gives a list of errors as for `init_error`
# ready()          the list of plugins for `ready`
# run(\%message)   a hook: gives a reference to the list of result entries, each a hash as in the protocol, and their
#                  form for Gatepost::Schema::message_result if it is known. Entries of plugins with nothing to say are
#                  shared, encoded in _bytes
# event(\%message) an event
# unfinished($why) what there is of the entries of the hook that runs, the last of them an error of the plugin whose turn it is; undef where none runs

use strict;
use warnings;

use POSIX ();
use Gatepost::Changes;
use Gatepost::Copies;
use Gatepost::Core;
use Gatepost::Hooks;
use Gatepost::Instances;
use Gatepost::Log;
use Gatepost::Outcome;
use Gatepost::Schema;
use Gatepost::Session;
use Gatepost::Settings;
use Gatepost::Turns;
use Qpsmtpd::Constants;
use Qpsmtpd::Plugin;

# A plugin's turn in a hook, [its code, its object, what else is known of it as a hash, its number]: a list, since twenty plugins in
# one process have twenty turns in every hook.
use constant {CODE => 0, PLUGIN => 1, ABOUT => 2, NUMBER => 3};

# The turn that is going on, and in which hook (undef while the plugin is loaded): for the message when a plugin ends
# the process. Not `local`, since exit undoes that before anybody can look.
our ($running, $running_hook);

# What the plugins before that one said, and what they say where they say nothing.
our $spoken_so_far;

sub running_plugin { return $running ? $running->[ABOUT]{name} : undef }

sub new {
    my ($class, %args) = @_;
    return bless {
        plugins => [], table => {}, sessions => {}, pid => $$, instances => Gatepost::Instances->new(%args),
    }, $class;
}

# This process is a worker in its own right, and no child of a plugin's.
sub forked { $_[0]{pid} = $$ }

sub load {
    my ($self, $plugins) = @_;
    my @errors;
    $Qpsmtpd::hooks = {};
    for my $about (@$plugins) {
        my ($entry, @problems) = $self->_making($about, sub { $self->{instances}->first($about) });
        push @{$self->{plugins}}, $entry if $entry;
        push @errors, map { {plugin => $about->{name}, %$_} } @problems;
    }
    return @errors if @errors;
    $self->_prepare;
    return;
}

# Runs code in which a plugin is made; $hook is the one that it is made for, if any.
sub _making {
    my ($self, $about, $code, $hook) = @_;
    ($running, $running_hook) = ([undef, undef, $about], $hook);
    my @made = $code->();
    undef $running;
    # A child that the plugin made, and that came back out of its code, is not to talk to the core.
    POSIX::_exit(255) if $$ != $self->{pid};
    return @made;
}

# What a hook needs is looked up here, once: a segment of many plugins must cost little more than one of one.
sub _prepare {
    my $self = shift;
    for my $entry (@{$self->{plugins}}) {
        my $name = $entry->{name};
        my $turns = Gatepost::Turns::of($entry);
        for my $hook (sort keys %$turns) {
            if (!Gatepost::Hooks::is_served($hook)) {
                Gatepost::Log::line($name, LOGWARN, "the hook $hook is not called by Gatepost");
                next;
            }
            $self->{table}{$hook}{$name} = $turns->{$hook};
        }
    }
    return;
}

# A hook that dies was skipped in qpsmtpd; the operator's on_error wins over this default. As there, a plugin asks by itself
# who is_immune.
sub ready {
    my $self = shift;
    my @ready;
    for my $entry (@{$self->{plugins}}) {
        my @hooks = map {
            {
                hook => $_, fields => Gatepost::Hooks::fields($_, $entry->{fields}),
                @{$entry->{reads}} && $_ ne 'log' ? (reads => $entry->{reads}) : (),
                Gatepost::Hooks::is_event($_) ? (mode => 'observe') : (),
                defined $entry->{plugin}{_gatepost}{priority}{$_} ? (priority => $entry->{plugin}{_gatepost}{priority}{$_}) : (),
            }
        } grep { $self->{table}{$_}{$entry->{name}} } sort keys %{$self->{table}};
        my $args = $entry->{plugin}{_args};
        my $level = ref $args eq 'HASH' ? $args->{loglevel} : undef;
        $level = Qpsmtpd::Constants::severity($level) if defined $level && $level =~ /\A[0-7]\z/;
        push @ready, {
            name => $entry->{name}, hooks => \@hooks,
            policy => {on_error => 'skip', immune => 0, defined $level && $level =~ /\A(?:[a-z]+|[+-][0-9])\z/ ? (loglevel => $level) : ()},
            @{$entry->{declared}} ? (settings => [Gatepost::Settings::announced(@{$entry->{declared}})]) : (),
        };
    }
    return \@ready;
}

sub _session {
    my ($self, $id) = @_;
    my $loading = $self->{instances}->loading;
    return Gatepost::Session->new($loading) unless defined $id;
    return $self->{sessions}{$id} //= Gatepost::Session->new($loading);
}

# For tests: whether any plugin takes part in a hook of the protocol; a session's daemon object, and its own copy of a plugin by its name.
sub takes_part { return exists $_[0]{table}{$_[1]} }

sub session_qp { $_[0]->_session($_[1])->qp }

sub plugin {
    my ($self, $name, $id) = @_;
    local $Gatepost::Copies::current = $self->_session($id)->copies if defined $id;
    return (map { Gatepost::Copies::of($_) } map { $_->{plugin} } grep { $_->{name} eq $name } @{$self->{plugins}})[0];
}

sub run {
    my ($self, $message) = @_;
    my ($hook, $id) = ($message->{hook}, $message->{session});
    my $segment = $message->{settings} ? $self->_segment($self->_in_force($message), $hook)
        : ($self->{segments}{$hook}{join "\n", @{$message->{plugins} // []}} //= $self->_segment([$self->_first($message)], $hook));
    my $session = defined $id && $self->{sessions}{$id} || $self->_session($id);
    my ($qp, $transaction) = $session->update($message, $segment->{all_notes});
    my @arguments = ($transaction, $segment->{arguments}->($message->{args} // {}, $qp));

    local $Qpsmtpd::Plugin::current_qp = $qp;
    local $Qpsmtpd::Plugin::current_hook = $hook;
    local $Gatepost::Changes::list = [];
    local $Gatepost::Copies::current = my $copies = defined $id ? $session->{copies} : undef;
    $running_hook = $hook;
    delete $qp->{_response};
    my ($rc, @reply, @spoken);
    $spoken_so_far = [\@spoken, $segment->{quiet}];
    # Nothing is done for each plugin that can be done once: twenty that have nothing to say must cost little more than
    # one. So there is one eval for all.
    my $lived = eval {
        no warnings qw(numeric uninitialized);
        for my $turn (@{$segment->{turns}}) {
            $running = $turn;
            my $plugin = $copies && defined $turn->[NUMBER] ? $copies->{$turn->[NUMBER]} //= Gatepost::Copies::copy($turn->[PLUGIN]) : $turn->[PLUGIN];
            ($rc, @reply) = $turn->[CODE]->($plugin, @arguments);
            next if $rc == DECLINED && !$Gatepost::Log::held && !@$Gatepost::Changes::list;
            my $about = $turn->[ABOUT];
            my $entry = $spoken[$about->{at}] = Gatepost::Outcome::entry($about, $qp, $message, $rc, \@reply);
            last if $entry->{recipients} || $entry->{verdict} && $entry->{verdict} ne 'declined';
        }
        1;
    };
    # A child that a plugin made, and that came back out of its code, ends here. The plugins behind that one had their
    # turn in it as well, since looking after each of them would be a system call for each.
    POSIX::_exit(255) if $$ != $self->{pid};
    my $last = $running;
    undef $running;
    undef $spoken_so_far;
    return ($segment->{quiet}, $segment->{encoded}) if $lived && !@spoken;
    my $about = $last->[ABOUT];
    # What a failure costs is on_error's business; the server asks for the rest where it costs nothing.
    $spoken[$about->{at}] = Gatepost::Outcome::failure($about, $about->{refused} // 'died: ' . Gatepost::Instances::reason($@)) if !$lived;
    return [map { $spoken[$_] // $segment->{quiet}[$_] } 0 .. $about->{at}];
}

sub unfinished {
    my (undef, $why) = @_;
    return unless $running && $spoken_so_far;
    my ($spoken, $quiet) = @$spoken_so_far;
    my $about = $running->[ABOUT];
    return [(map { $spoken->[$_] // $quiet->[$_] } 0 .. $about->{at} - 1), {plugin => $about->{name}, disposition => 'error', message => $why}];
}

# The line of the plugin's file that it is at, whatever it called there, " at FILE line N". For a signal's handler.
sub where_it_is {
    my $class = $running && ref $running->[PLUGIN] or return '';
    for (my $depth = 1; my ($package, $file, $line) = caller $depth; $depth++) {
        return " at $file line $line" if $package eq $class;
    }
    return '';
}

# The plugins that a hook is for, as `init` had them made.
sub _first {
    my ($self, $message) = @_;
    my $table = $self->{table}{$message->{hook}} // {};
    return map { $table->{$_} // _absent($_) } @{$message->{plugins} // []};
}

sub _absent {
    my $name = shift;
    my $nobody = bless {_gatepost => {number => 0}}, 'Qpsmtpd::Plugin';
    return {name => $name, plugin => $nobody, quiet => Gatepost::Outcome::quiet($name), code => sub { DECLINED }};
}

# The same, for settings in force. A plugin that they do not suit says so when it is its turn.
sub _in_force {
    my ($self, $message) = @_;
    my ($hook, $settings) = @$message{qw(hook settings)};
    my $asked = $self->_session($message->{session})->asked;
    my @abouts = $self->_first($message);
    for my $about (grep { $_->{codes} && $settings->{$_->{name}} } @abouts) {
        my $name = $about->{name};
        my $make = sub { $self->{instances}->other($about->{about}, $settings->{$name}) };
        my ($key, @made) = $self->_making($about->{about}, $make, $hook);
        if (defined $key) {
            $asked->{$name}{$key} = 1;
            $about = $made[0]{$hook} // _absent($name);
        }
        else {
            my $refused = 'the settings in force cannot be used: ' . join '; ', map { _sentence($_) } @made;
            $about = {%$about, refused => $refused, code => sub { die "refused\n" }};
        }
    }
    return \@abouts;
}

sub _sentence {
    my $error = shift;
    return join ': ', join('.', @{$error->{path} // []}) || (), $error->{message};
}

# What running these plugins in this order needs.
sub _segment {
    my ($self, $abouts, $hook) = @_;
    my @quiet = map { $_->{quiet} } @$abouts;
    return {
        turns => [map { [@{$abouts->[$_]}{qw(code plugin)}, {%{$abouts->[$_]}, at => $_}, $abouts->[$_]{plugin}{_gatepost}{number}] } 0 .. $#$abouts],
        quiet => \@quiet, encoded => Gatepost::Schema::results(map { $_->{_bytes} } @quiet),
        arguments => Gatepost::Hooks::arguments($hook),
        all_notes => scalar grep({ "@{$_->{reads} // []}" eq '*' } @$abouts),
    };
}

# A line of the core's log. Its session may be one that this worker does not know, or not any more.
sub _line {
    my ($self, $message) = @_;
    my ($id, $args) = ($message->{session} // '', $message->{args} // {});
    my $known = $self->{sessions}{$id};
    my $session = $known // $self->_session(undef);
    local $Gatepost::Copies::current = $known && $known->copies;
    local $Qpsmtpd::Plugin::current_qp = $session->qp;
    Gatepost::Log::told(Qpsmtpd::Constants::level($args->{level}), @$args{qw(hook plugin message)});
    POSIX::_exit(255) if $$ != $self->{pid};
    return;
}

sub event {
    my ($self, $message) = @_;
    my $hook  = $message->{hook};
    return $self->_line($message) if $hook eq 'log';
    my $id = $message->{session};
    my $turns = $self->_told($hook, $message->{plugins} // [], defined $id ? $self->{sessions}{$id} : undef);
    if (@$turns) {
        my $session = $self->_session($id);
        my ($qp, $transaction) = $session->update($message);
        local $Gatepost::Copies::current = defined $id ? $session->copies : undef;
        my @arguments = ($transaction, Gatepost::Hooks::arguments($hook)->($message->{args} // {}, $qp));
        local ($Qpsmtpd::Plugin::current_qp, $Qpsmtpd::Plugin::current_hook) = ($qp, $hook);
        $running_hook = $hook;
        # As in run(); whoever dies keeps nobody else from being told.
        my $next = 0;
        while ($next < @$turns) {
            eval {
                while ($next < @$turns) {
                    $running = $turns->[$next++];
                    $running->[CODE]->(Gatepost::Copies::of($running->[PLUGIN]), @arguments);
                }
                1;
            } or Gatepost::Log::line($running->[ABOUT]{name}, LOGCRIT, "died in $hook: " . Gatepost::Instances::reason($@));
        }
        POSIX::_exit(255) if $$ != $self->{pid};
    }
    undef $running;
    $self->_forget($hook, $id);
    return;
}

# The turns of those who are told; each of a plugin's codes is one.
sub _told {
    my ($self, $hook, $plugins, $session) = @_;
    my $table = $self->{table}{$hook} // {};
    my $turns = sub { [map { my $about = $_; map { [$_, $about->{plugin}, $about] } @{$about->{codes}} } grep { $_ } @_] };
    if (!$session || !%{$session->asked}) {
        return $self->{told}{$hook}{join "\n", @$plugins} //= $turns->(@$table{@$plugins});
    }
    my $asked = $session->asked;
    return $turns->(map { ($table->{$_}, $asked->{$_} ? $self->_others_at_end($hook, $_, $asked->{$_}) : ()) } @$plugins);
}

# Other instances of a plugin that were asked about a session keep things for it as well: they are told when it, or its transaction,
# is over.
sub _others_at_end {
    my ($self, $hook, $name, $asked) = @_;
    return unless $hook eq 'disconnect' || $hook eq 'reset_transaction';
    return map { $_->{$hook} } $self->{instances}->known($name, $asked);
}

sub _forget {
    my ($self, $hook, $id) = @_;
    return unless defined $id && $self->{sessions}{$id};
    if    ($hook eq 'disconnect')        { delete $self->{sessions}{$id} }
    elsif ($hook eq 'reset_transaction') { $self->{sessions}{$id}->end_transaction }
    return;
}

1;
