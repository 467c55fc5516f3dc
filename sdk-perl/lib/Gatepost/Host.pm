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

use strict;
use warnings;

use POSIX ();
use Gatepost::Changes;
use Gatepost::Core;
use Gatepost::Hooks;
use Gatepost::Loader;
use Gatepost::Log;
use Gatepost::Needs;
use Gatepost::Outcome;
use Gatepost::Schema;
use Gatepost::Session;
use Gatepost::Settings;
use Qpsmtpd::Constants;
use Qpsmtpd::Plugin;

# A plugin's turn in a hook, [its code, its object, what else is known of it as a hash]: a list, since twenty plugins in
# one process have twenty turns in every hook.
use constant {CODE => 0, PLUGIN => 1, ABOUT => 2};

# The turn that is going on, and in which hook (undef while the plugin is loaded): for the message when a plugin ends
# the process. Not `local`, since exit undoes that before anybody can look.
our ($running, $running_hook);

sub running_plugin { return $running ? $running->[ABOUT]{name} : undef }

sub new {
    my ($class, %args) = @_;
    return bless {
        plugins => [], table => {}, sessions => {}, pid => $$, default_source => $args{source}, default_args => $args{args},
    }, $class;
}

sub load {
    my ($self, $plugins) = @_;
    my @errors;
    for my $about (@$plugins) {
        my @problems = eval { $self->_load($about) };
        undef $running;
        # A child that the plugin made, and that came back out of its code, is not to talk to the core.
        POSIX::_exit(255) if $$ != $self->{pid};
        @problems = ({path => [], message => _reason($@)}) if $@;
        push @errors, map { {plugin => $about->{name}, %$_} } @problems;
    }
    return @errors if @errors;
    $self->_prepare;
    return;
}

sub _reason {
    my $text = "$_[0]";
    $text =~ s/\s+\z//;
    return $text;
}

sub _load {
    my ($self, $about) = @_;
    my $name = $about->{name};
    ($running, $running_hook) = ([undef, undef, $about], undef);
    my $source = $about->{source} // $self->{default_source} // $name;
    my @args = @{$about->{args} // []};
    @args = @{$self->{default_args} // []} if !@args && !defined $about->{source};

    my $path  = Gatepost::Loader::find($source, $about->{dirs});
    my $class = Gatepost::Loader::load($name, $path);
    my $plugin = $class->new(_name => $name, _dirs => $about->{dirs} // []);
    my @declared = Gatepost::Settings::declared($plugin);
    my $given = $about->{settings} // {};
    my ($settings, @errors) = @declared ? Gatepost::Settings::check(\@declared, $given) : {%$given};
    return @errors if @errors;

    my %pairs = @args % 2 ? () : @args;
    $plugin->{_settings} = $settings;
    $plugin->{_args} = {%$settings, %pairs};
    my $qp = Qpsmtpd::SMTP->new;
    {
        local ($Qpsmtpd::Plugin::current_qp, $Qpsmtpd::Plugin::current_hook) = ($qp, undef);
        $plugin->_register($qp, @args);
    }
    # Most plugins replace _args in register, by their arguments and defaults.
    if (ref $plugin->{_args} eq 'HASH') {
        exists $pairs{$_} or $plugin->{_args}{$_} = $settings->{$_} for keys %$given;
    }
    my $needs = Gatepost::Needs::of_file($path);
    push @{$self->{plugins}}, {
        name => $name, plugin => $plugin, declared => \@declared, reads => $needs->{notes}, fields => $needs->{fields},
        quiet => _quiet($name),
    };
    return;
}

# What a hook needs is looked up here, once: a segment of many plugins must cost little more than one of one.
sub _prepare {
    my $self = shift;
    %Qpsmtpd::SMTP::hooks = ();
    for my $entry (@{$self->{plugins}}) {
        my ($name, $plugin) = @$entry{qw(name plugin)};
        my $registered = $plugin->{_registered} // {};
        for my $hook (sort keys %$registered) {
            my @code = map { ref $_ ? $_ : $plugin->can($_) // _missing($_) } @{$registered->{$hook}};
            if (!Gatepost::Hooks::is_served($hook)) {
                Gatepost::Log::line($name, LOGWARN, "the hook $hook is not called by Gatepost");
                next;
            }
            $self->{table}{$hook}{$name} = {%$entry, codes => \@code, code => @code == 1 ? $code[0] : _one_by_one(@code)};
            push @{$Qpsmtpd::SMTP::hooks{$hook}},
                map { my $code = $_; {name => $plugin->plugin_name, code => sub { $code->($plugin, @_) }} } @code;
        }
    }
    return;
}

# Several pieces of code of one plugin for one hook, as one: the first that has something to say ends it.
sub _one_by_one {
    my @code = @_;
    return sub {
        my @got;
        for my $code (@code) {
            @got = $code->(@_);
            no warnings 'numeric';
            last unless defined $got[0] && $got[0] == DECLINED;
        }
        return @got;
    };
}

sub _missing {
    my $method = shift;
    return sub { die "the method $method, which the plugin registered, does not exist\n" };
}

# A hook that dies was skipped in qpsmtpd; the operator's on_error wins over this default.
sub ready {
    my $self = shift;
    my @ready;
    for my $entry (@{$self->{plugins}}) {
        my @hooks = map {
            {
                hook => $_, fields => Gatepost::Hooks::fields($_, $entry->{fields}),
                @{$entry->{reads}} ? (reads => $entry->{reads}) : (),
                Gatepost::Hooks::is_event($_) ? (mode => 'observe') : (),
            }
        } grep { $self->{table}{$_}{$entry->{name}} } sort keys %{$self->{table}};
        my $args = $entry->{plugin}{_args};
        my $level = ref $args eq 'HASH' ? $args->{loglevel} : undef;
        $level = Qpsmtpd::Constants::severity($level) if defined $level && $level =~ /\A[0-7]\z/;
        push @ready, {
            name => $entry->{name}, hooks => \@hooks,
            policy => {on_error => 'skip', defined $level && $level =~ /\A(?:[a-z]+|[+-][0-9])\z/ ? (loglevel => $level) : ()},
            @{$entry->{declared}} ? (settings => [Gatepost::Settings::announced(@{$entry->{declared}})]) : (),
        };
    }
    return \@ready;
}

sub _session {
    my ($self, $id) = @_;
    return Gatepost::Session->new unless defined $id;
    return $self->{sessions}{$id} //= Gatepost::Session->new;
}

# For tests: a session's daemon object, and a plugin by its name.
sub session_qp { $_[0]->_session($_[1])->qp }

sub plugin {
    my ($self, $name) = @_;
    return (map { $_->{plugin} } grep { $_->{name} eq $name } @{$self->{plugins}})[0];
}

sub run {
    my ($self, $message) = @_;
    my ($hook, $id) = ($message->{hook}, $message->{session});
    my $segment = $self->{segments}{$hook}{join "\n", @{$message->{plugins} // []}} //= $self->_segment($message);
    my $session = defined $id && $self->{sessions}{$id} || $self->_session($id);
    my ($qp, $transaction) = $session->update($message, $segment->{all_notes});
    my @arguments = ($transaction, $segment->{arguments}->($message->{args} // {}, $qp));

    local $Qpsmtpd::Plugin::current_qp = $qp;
    local $Qpsmtpd::Plugin::current_hook = $hook;
    local $Gatepost::Changes::list = [];
    $running_hook = $hook;
    my ($rc, @reply, @spoken);
    # Nothing is done for each plugin that can be done once: twenty that have nothing to say must cost little more than
    # one. So there is one eval for all.
    my $lived = eval {
        no warnings qw(numeric uninitialized);
        for my $turn (@{$segment->{turns}}) {
            $running = $turn;
            ($rc, @reply) = $turn->[CODE]->($turn->[PLUGIN], @arguments);
            next if $rc == DECLINED && !$Gatepost::Log::held && !@$Gatepost::Changes::list;
            my $about = $turn->[ABOUT];
            my $entry = $spoken[$about->{at}] = Gatepost::Outcome::entry($about, $qp, $hook, $rc, \@reply);
            last if $entry->{verdict} && $entry->{verdict} ne 'declined';
        }
        1;
    };
    # A child that a plugin made, and that came back out of its code, ends here. The plugins behind that one had their
    # turn in it as well, since looking after each of them would be a system call for each.
    POSIX::_exit(255) if $$ != $self->{pid};
    my $last = $running;
    undef $running;
    return ($segment->{quiet}, $segment->{encoded}) if $lived && !@spoken;
    my $about = $last->[ABOUT];
    # What a failure costs is on_error's business; the server asks for the rest where it costs nothing.
    $spoken[$about->{at}] = Gatepost::Outcome::failure($about, _reason($@)) if !$lived;
    return [map { $spoken[$_] // $segment->{quiet}[$_] } 0 .. $about->{at}];
}

# What running these plugins in this order needs, found once.
sub _segment {
    my ($self, $message) = @_;
    my $table = $self->{table}{$message->{hook}} // {};
    my @abouts = map { $table->{$_} // {name => $_, quiet => _quiet($_), code => sub { DECLINED }} } @{$message->{plugins} // []};
    my @quiet = map { $_->{quiet} } @abouts;
    return {
        turns => [map { [@{$abouts[$_]}{qw(code plugin)}, {%{$abouts[$_]}, at => $_}] } 0 .. $#abouts],
        quiet => \@quiet, encoded => Gatepost::Schema::results(map { $_->{_bytes} } @quiet),
        arguments => Gatepost::Hooks::arguments($message->{hook}),
        all_notes => scalar grep({ "@{$_->{reads} // []}" eq '*' } @abouts),
    };
}

sub _quiet {
    my $name = shift;
    return {plugin => $name, _bytes => $Gatepost::Schema::RESULT->({plugin => $name})};
}

sub event {
    my ($self, $message) = @_;
    my $hook  = $message->{hook};
    my $table = $self->{table}{$hook} // {};
    my @abouts = grep { $_ } map { $table->{$_} } @{$message->{plugins} // []};
    if (@abouts) {
        my ($qp, $transaction) = $self->_session($message->{session})->update($message);
        my @arguments = Gatepost::Hooks::arguments($hook)->($message->{args} // {}, $qp);
        local ($Qpsmtpd::Plugin::current_qp, $Qpsmtpd::Plugin::current_hook) = ($qp, $hook);
        $running_hook = $hook;
        for my $about (@abouts) {
            $running = [@$about{qw(code plugin)}, $about];
            for my $code (@{$about->{codes}}) {
                eval { $code->($about->{plugin}, $transaction, @arguments); 1 }
                    or Gatepost::Log::line($about->{name}, LOGCRIT, "died in $hook: " . _reason($@));
                POSIX::_exit(255) if $$ != $self->{pid};
            }
        }
    }
    undef $running;
    $self->_forget($hook, $message->{session});
    return;
}

sub _forget {
    my ($self, $hook, $id) = @_;
    return unless defined $id && $self->{sessions}{$id};
    if    ($hook eq 'disconnect')        { delete $self->{sessions}{$id} }
    elsif ($hook eq 'reset_transaction') { $self->{sessions}{$id}->end_transaction }
    return;
}

1;
